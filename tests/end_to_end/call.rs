//! `rpcache call`: what it prints where and in which order, and its exit codes.

use crate::support::process::Program;
use crate::support::{Setup, VERY_SLOW, fibonacci, wait};
use serde_json::Value;
use std::io::Write as _;

#[tokio::test]
async fn one_argument_prints_its_answer_alone() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.call(&["30"]).await.answers("832040\n");
    setup.call(&["30"]).await.answers("832040\n");
    setup.call(&["0"]).await.answers("0\n");
}

#[tokio::test]
async fn several_arguments_print_lines_in_their_order() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup
        .call(&["30", "5", "0..2", "5"])
        .await
        .answers("30\t832040\n5\t5\n0\t0\n1\t1\n2\t1\n5\t5\n");
    // A range is more than one argument, whatever is in it.
    setup.call(&["7..7"]).await.answers("7\t13\n");
}

#[tokio::test]
async fn stderr_is_empty_without_a_terminal() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    assert_eq!(setup.call(&["30", "31"]).await.stderr, "");
}

#[tokio::test]
async fn terminal_shows_the_source_of_each_answer() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    for source in ["computed", "cache"] {
        // `script` gives its command a terminal.
        let line = r#"script -qec '"$RPCACHE" call 30' /dev/null"#;
        let shown = setup.knowing(Program::shell(line)).run().await;
        assert_eq!(shown.code, Some(0), "{shown:#?}");
        assert!(
            shown.stdout.contains("832040") && shown.stdout.contains(source),
            "not {source}: {shown:#?}"
        );
    }
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--max-n", "100"]).await;
    setup.redis.set("fib:31", "1346269").await;
    let finished = setup.call(&["--json", "30..31", "101", "32"]).await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let lines: Vec<Value> = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [computed, cached, failed] = lines.as_slice() else {
        panic!("{finished:#?}")
    };

    for (line, [argument, answer, source]) in [
        (computed, ["30", "832040", "computed"]),
        (cached, ["31", "1346269", "cache"]),
    ] {
        assert_eq!(line["argument"], argument);
        assert_eq!(line["answer"], answer);
        assert_eq!(line["source"], source);
        assert!(
            line["elapsed_ms"]
                .as_f64()
                .is_some_and(|elapsed| elapsed > 0.0),
            "{line}"
        );
        assert_eq!(
            line.as_object().map(serde_json::Map::len),
            Some(4),
            "{line}"
        );
    }
    assert_eq!(failed["argument"], "101");
    assert_eq!(failed["error"]["code"], "too-large");
    assert!(
        failed["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("100")),
        "{failed}"
    );
}

#[tokio::test]
async fn first_failure_ends_the_command() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--max-n", "100"]).await;
    let finished = setup.call(&["1", "101", "3"]).await;
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(1), "1\t1\n"),
        "{finished:#?}"
    );
    finished.has_one_clear_line("101");
}

#[tokio::test]
async fn no_cache_leaves_no_trace_and_refresh_writes_again() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    setup.call(&["30", "--no-cache"]).await.answers("832040\n");
    assert_eq!(setup.redis.keys().await, Vec::<String>::new());

    // The test's entry has no expiry; one that rpcache writes has.
    setup.redis.set("fib:30", "832040").await;
    setup.call(&["30", "--no-cache"]).await.answers("832040\n");
    assert_eq!(setup.redis.pttl("fib:30").await, -1);
    setup.call(&["30", "--refresh"]).await.answers("832040\n");
    assert!(setup.redis.pttl("fib:30").await > 0);
}

#[tokio::test]
async fn closed_pipe_ends_the_command_quietly() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let head = setup
        .knowing(Program::shell(r#""$RPCACHE" call 0..100000 | head -1"#))
        .run()
        .await;
    head.answers("0\t0\n");
    assert_eq!(head.stderr, "");
}

/// A reader of the pipe need not wait for the last answer.
#[tokio::test]
async fn answers_are_printed_as_they_come() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "31"]);
    let request = worker.take_argument("30").await;
    worker.reply(&request, "832040").await;
    wait::wait_until("the first is printed", async || {
        call.stdout() == "30\t832040\n"
    })
    .await;
}

#[tokio::test]
async fn deadline_ends_the_command() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30", "--timeout", "700ms"]);
    worker.take().await;
    let finished = call.finish().await;
    finished.refuses(124, "700");
    assert!(
        (700..3000).contains(&finished.took.as_millis()),
        "{finished:#?}"
    );
}

/// A pipe that is full before the first answer is written, and is not read.
#[tokio::test]
async fn interrupts_end_a_command_whose_output_is_not_read() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    for (arguments, last) in [
        (&["100000"][..], 100_000),
        (&["100001", "--json"], 100_001),
        (&["99980..99990", "--keep-going"], 99_990),
    ] {
        let (unread, mut pipe) = std::io::pipe().unwrap();
        // The capacity of a pipe.
        pipe.write_all(&vec![b'.'; 64 * 1024]).unwrap();
        let program = setup.rpcache(&[&["call"], arguments].concat());
        let mut call = program.stdout_to(pipe).start();
        wait::wait_until("an answer is stored", async || {
            setup.redis.get(&format!("fib:{last}")).await.is_some()
        })
        .await;
        wait::wait_until("interrupts end it", async || {
            call.signal("INT");
            !call.is_running()
        })
        .await;
        assert_eq!(call.finish().await.code, Some(130));
        drop(unread);
    }
}

#[tokio::test]
async fn interrupt_ends_the_command() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let call = setup.start_call(&["30"]);
    worker.take().await;
    call.signal("INT");
    let finished = call.finish().await;
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(130), ""),
        "{finished:#?}"
    );
}

#[tokio::test]
async fn slow_answer_is_waited_for() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&["--algorithm", "iterative"]).await;
    let finished = setup
        .call(&[&VERY_SLOW.to_string(), "--timeout", "25s"])
        .await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout.trim_end().len(), 156_741);
}

#[tokio::test]
async fn algorithms_agree() {
    for algorithm in ["doubling", "iterative", "memoized"] {
        let setup = Setup::new().await;
        let _worker = setup.worker(&["--algorithm", algorithm]).await;
        for n in [0, 1, 93, 186, 187, 5000] {
            let call = setup.call(&[&n.to_string(), "--no-cache"]).await;
            call.answers(&format!("{}\n", fibonacci(n)));
        }
    }
}

#[tokio::test]
async fn lines_of_stdin_after_a_refused_one_are_called() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let line = "(head -c 3000 /dev/zero | tr '\\0' 9; echo; printf '\\377\\n30\\nx\\n31\\n') \
                | $RPCACHE call - --keep-going";
    let finished = setup.knowing(Program::shell(line)).run().await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert_eq!(finished.stdout, "30\t832040\n31\t1346269\n");
    assert_eq!(finished.stderr.lines().count(), 3, "{finished:#?}");
}

#[tokio::test]
async fn refused_line_does_not_shift_later_answers() {
    let setup = Setup::new().await;
    for n in [30, 31] {
        setup.redis.set(&format!("fib:{n}"), &fibonacci(n)).await;
    }
    let line = r#"printf 'x\n30\n\n31\n' | "$RPCACHE" call --keep-going - 2>/dev/null"#;
    let finished = setup.knowing(Program::shell(line)).run().await;
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert_eq!(finished.stdout, "30\t832040\n31\t1346269\n");
}
