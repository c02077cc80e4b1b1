//! Finds the file of a program, and says why it cannot be started, before the first request does.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Searched where `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The absolute path of a program: its name as it is if it has a slash, otherwise searched in `PATH`. The error says what
/// to do.
pub(super) fn find(name: &OsStr) -> Result<PathBuf, String> {
    let file = if name.as_bytes().contains(&b'/') {
        let file = absolute(Path::new(name))?;
        check_executable(&file)?;
        file
    } else {
        search(name)?
    };
    check_interpreter(&file)?;
    Ok(file)
}

/// Absolute, so that it stays the same file when the working directory is moved.
fn absolute(file: &Path) -> Result<PathBuf, String> {
    std::path::absolute(file).map_err(|error| {
        format!("the working directory cannot be used ({error}): change to one that exists")
    })
}

fn search(name: &OsStr) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut unusable = None;
    for folder in env::split_paths(&path) {
        let file = folder.join(name);
        if !file.exists() {
            continue;
        }
        match check_executable(&file) {
            Ok(()) => return absolute(&file),
            Err(reason) => {
                unusable.get_or_insert(reason);
            }
        }
    }
    Err(unusable.unwrap_or_else(|| not_found(name)))
}

fn not_found(name: &OsStr) -> String {
    let name = name.display();
    let here = if Path::new(&name.to_string()).exists() {
        format!("; for the file in this directory, write ./{name}")
    } else {
        "; install it, or write its path".to_owned()
    };
    format!("{name}: not found in PATH{here}")
}

fn check_executable(file: &Path) -> Result<(), String> {
    let shown = file.display();
    let found = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{shown}: there is no such file"),
        _ => format!("{shown}: {error}"),
    })?;
    if found.is_dir() {
        return Err(format!(
            "{shown} is a directory: write the path of a program"
        ));
    }
    if !found.is_file() {
        return Err(format!(
            "{shown} is not a file: write the path of a program"
        ));
    }
    access(file, Access::EXEC_OK).map_err(|_| {
        format!(
            "{shown} is not executable: run chmod +x on it, or write its interpreter before it, such as python3 or sh"
        )
    })
}

/// Checks the first line of a script: the kernel refuses one without `#!`, and reports a missing interpreter as if the
/// script were missing.
fn check_interpreter(script: &Path) -> Result<(), String> {
    // As much as the kernel reads.
    let mut head = Vec::new();
    let read = File::open(script).and_then(|file| file.take(256).read_to_end(&mut head));
    if read.is_err() {
        // Executable, and not readable: a program, since an interpreter has to read its script.
        return Ok(());
    }
    let shown = script.display();
    let Some(line) = head.strip_prefix(b"#!") else {
        // A program of another format has a NUL; the kernel may know how to run it.
        if head.contains(&0) {
            return Ok(());
        }
        return Err(format!(
            "{shown} has no #! line, so it cannot be started: begin it with one, such as #!/bin/sh or \
             #!/usr/bin/env python3"
        ));
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line);
    if line.ends_with(b"\r") {
        return Err(format!(
            "the first line of {shown} ends in a carriage return: convert its line ends, for example by dos2unix"
        ));
    }
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(OsStr::from_bytes);
    let interpreter = words.next().unwrap_or(OsStr::new(""));
    let missing = |name: &OsStr| {
        let name = name.display();
        format!(
            "the first line of {shown} names {name}, which is not there: install it, or correct the line"
        )
    };
    if access(interpreter, Access::EXEC_OK).is_err() {
        return Err(missing(interpreter));
    }
    if Path::new(interpreter).file_name() == Some(OsStr::new("env"))
        && let Some(name) = words.next()
        // Neither an option of env, such as -S, nor a variable.
        && !name.as_bytes().starts_with(b"-")
        && !name.as_bytes().contains(&b'=')
        && search(name).is_err()
    {
        return Err(missing(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refused(path: &Path) -> String {
        find(path.as_os_str()).unwrap_err()
    }

    #[test]
    fn a_name_is_searched_in_path_and_a_path_is_not() {
        assert!(find(OsStr::new("sh")).unwrap().ends_with("sh"));
        assert_eq!(find(OsStr::new("/bin/sh")), Ok("/bin/sh".into()));
        let unknown = find(OsStr::new("no-such-program")).unwrap_err();
        assert!(
            unknown.contains("not found in PATH; install it"),
            "{unknown}"
        );
        assert!(
            find(OsStr::new("Cargo.toml"))
                .unwrap_err()
                .contains("write ./Cargo.toml")
        );
        assert!(refused(Path::new("./no-such-program")).contains("no such file"));
    }

    #[test]
    fn what_cannot_be_started_is_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        assert!(refused(folder.path()).contains("is a directory"));
        let plain = file("plain", "#!/bin/sh\n", 0o600);
        assert!(refused(&plain).contains("chmod +x"));
        for (text, reason) in [
            ("echo 1\n", "has no #! line"),
            ("", "has no #! line"),
            ("#!/bin/sh\r\n", "carriage return"),
            ("#!/no/such/sh -e\n", "names /no/such/sh"),
            ("#!\n", "which is not there"),
            ("#!/usr/bin/env no-such-python\n", "names no-such-python"),
        ] {
            let refused = refused(&file("script", text, 0o700));
            assert!(refused.contains(reason), "{text:?}: {refused}");
        }
        for text in [
            "#!/bin/sh",
            "#! /bin/sh -e\n",
            "#!/usr/bin/env -S sh -e\n",
            "#!/usr/bin/env sh\n",
        ] {
            let script = file("script", text, 0o700);
            assert_eq!(find(script.as_os_str()), Ok(script), "{text:?}");
        }
    }
}
