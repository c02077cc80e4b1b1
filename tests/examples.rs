//! Unit tests of the examples, and the README's copy of one. `end_to_end` runs them between real servers.

#[path = "../examples/timetable.rs"]
#[expect(dead_code, reason = "its main is not run here")]
mod timetable;

/// The code in the README is part of the example, apart from comments and ellipses.
#[test]
fn readme_shows_the_example_as_it_is() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/prime_factors.rs");
    let blocks = readme.split("```rust\n").skip(1);
    let code = blocks.filter_map(|block| block.split("```").next());
    let lines = code.flat_map(str::lines).map(|line| {
        let (code, _comment) = line.split_once(" //").unwrap_or((line, ""));
        code.trim()
    });
    let mut shown = 0;
    for piece in lines.flat_map(|line| line.split('…')).map(str::trim) {
        if !matches!(piece, "" | "}") {
            assert!(
                example.contains(piece),
                "the example does not say {piece:?}"
            );
            shown += 1;
        }
    }
    assert!(shown > 3, "the README shows no Rust");
}
