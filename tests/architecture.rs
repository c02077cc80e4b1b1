//! Checks the structure of the code by reading its files: which modules use each other, which ones use the
//! libraries below, and the length of files. ARCHITECTURE.md has the rules in words.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on ends by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules, or folders of a module, that may use a library. All others go through them.
const USERS: &[(&str, &[&str])] = &[
    ("redis", &["cache/redis", "server_url"]),
    ("bb8", &["cache/redis"]),
    ("bb8_redis", &["cache/redis"]),
    (
        "lapin",
        &[
            "broker",
            "message",
            "queue",
            "requester",
            "server_url",
            "worker",
        ],
    ),
    ("rustix", &["program"]),
    ("rustls", &["tls", "transport"]),
    ("prometheus_client", &["metrics"]),
    ("opentelemetry", &["trace"]),
    ("quick_cache", &["client", "fibonacci"]),
];

const MAX_LINES: usize = 350;

/// Longer files, and why.
const LONG_FILES: &[(&str, &str)] = &[(
    "tests/end_to_end/support/amqp.rs",
    "caller, worker and broker of the tutorial, as its readers know them",
)];

/// A file of the library: its module, its path, and its code without comments and tests.
struct Source {
    module: String,
    path: PathBuf,
    code: String,
}

/// All files of the library in the order of their paths, without those of the command.
fn library() -> Vec<Source> {
    let root = root().join("src");
    let sources = files_in(&root)
        .into_iter()
        .filter_map(|file| source(&root, &file));
    sources.collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source(root: &Path, file: &Path) -> Option<Source> {
    let path = file.strip_prefix(root).unwrap().to_owned();
    let mut names = path
        .components()
        .map(|name| name.as_os_str().to_str().unwrap());
    let module = names.next()?.trim_end_matches(".rs").to_owned();
    let is_test = path
        .iter()
        .any(|name| name == "tests" || name == "tests.rs");
    if ["bin", "lib", "interleavings"].contains(&module.as_str()) || is_test {
        return None;
    }
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next()?.to_owned();
    let code = |line: &str| line.split("//").next().unwrap_or("").to_owned() + "\n";
    Some(Source {
        module,
        path,
        code: text.lines().map(code).collect(),
    })
}

/// The names behind `crate::`, also those in braces.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split(';').next().unwrap_or(""),
            None => rest,
        };
        let is_list = rest.starts_with('{');
        let mut depth = 0;
        for part in list.split_inclusive(['{', '}', ',']) {
            let name: String = part
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if depth == 0 && !name.is_empty() {
                used.insert(name);
            }
            depth += part.matches('{').count();
            depth = depth.saturating_sub(part.matches('}').count());
            if !is_list {
                break;
            }
        }
    }
    used
}

/// Which modules each module uses.
fn dependencies(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules: BTreeSet<&str> = sources.iter().map(|source| &*source.module).collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let named = used_modules(&source.code);
        let others = modules.iter().filter(|name| named.contains(**name));
        let all = uses.entry(&source.module).or_default();
        all.extend(others.filter(|name| **name != source.module));
    }
    uses
}

/// The modules in cycles, and those that use them: what is left after modules that use no other one are removed
/// again and again.
fn in_cycles<'a>(
    mut uses: BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    loop {
        let uses_nothing = |used: &BTreeSet<&str>| used.iter().all(|name| !uses.contains_key(name));
        let done: Vec<&str> = uses
            .iter()
            .filter(|(_, used)| uses_nothing(used))
            .map(|(name, _)| *name)
            .collect();
        if done.is_empty() {
            return uses;
        }
        uses.retain(|name, _| !done.contains(name));
    }
}

#[test]
fn modules_have_no_cycle() {
    let sources = library();
    let uses = dependencies(&sources);
    assert!(uses.len() > 15, "modules are missing: {uses:?}");
    assert!(uses["client"].contains("cache"), "uses are missing");
    let cycles = in_cycles(uses);
    assert!(cycles.is_empty(), "these use each other: {cycles:#?}");
}

#[test]
fn uses_and_cycles_are_recognized() {
    let code = "use crate::{a, b::{self, c}, d};\nuse crate::e::f;\nfn g() { crate::h::i() }";
    let used: Vec<_> = used_modules(code).into_iter().collect();
    assert_eq!(used, ["a", "b", "d", "e", "h"]);
    let graph = |edges: &[(&'static str, &'static str)]| {
        let mut graph = BTreeMap::<_, BTreeSet<_>>::new();
        for &(from, to) in edges {
            graph.entry(from).or_default().insert(to);
            graph.entry(to).or_default();
        }
        graph
    };
    assert!(in_cycles(graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let cycles = in_cycles(graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert_eq!(cycles.keys().copied().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn libraries_are_used_by_their_modules_only() {
    for source in library() {
        for (library, modules) in USERS {
            let path = format!("{library}::");
            let mut found = source.code.match_indices(&path);
            let is_whole = |(at, _): &(usize, &str)| {
                let before = source.code[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            };
            let file = source.path.with_extension("");
            let may = modules.iter().any(|module| file.starts_with(module));
            assert!(
                !found.any(|found| is_whole(&found)) || may,
                "{} uses {library}, which is for {modules:?}",
                source.path.display()
            );
        }
    }
}

#[test]
fn no_file_is_long_without_a_reason() {
    for folder in ["src", "tests", "benches", "examples"] {
        for file in files_in(&root().join(folder)) {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            let has_reason = LONG_FILES.iter().any(|(long, _)| *long == path);
            assert!(
                lines <= MAX_LINES || has_reason,
                "{path} has {lines} lines; {MAX_LINES} are the most without a reason"
            );
        }
    }
}

#[test]
fn files_that_the_description_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    // The odd parts are in backticks.
    let names = text.split('`').skip(1).step_by(2);
    let is_file = |name: &&str| Path::new(name).extension().is_some_and(|end| end == "rs");
    let files: Vec<&str> = names.filter(is_file).collect();
    assert!(files.len() > 20, "the names are not found: {files:?}");
    for file in files {
        let exists = root.join("src").join(file).exists() || root.join(file).exists();
        assert!(exists, "ARCHITECTURE.md names {file}, which does not exist");
    }
}
