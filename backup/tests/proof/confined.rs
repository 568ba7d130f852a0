//! What the helper can do: nothing but what it is for.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfpsync_backup::restore::{Helper, RestoreError, Sought};

use crate::support::{Archive, has, helper, identity, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mfpsync-restore");

#[test]
fn a_helper_that_cannot_be_run_or_says_nothing_is_told_apart() {
    let archive = Archive::small();
    let sought = Sought::from(&archive.manifest);
    let below = archive.directory.path();
    let run = |program: &str| {
        let helper = Helper::new(program.into());
        helper.prove(archive.bytes.as_slice(), &sought, &identity(), below, &|| false).map(drop).unwrap_err()
    };
    assert!(matches!(run("/none/mfpsync-restore"), RestoreError::Helper(_)));
    assert!(matches!(run("/bin/true"), RestoreError::Died(None)));
    let killed = script(below, "head -c 9000 >/dev/null; kill -9 $$");
    assert!(matches!(run(killed.to_str().unwrap()), RestoreError::Died(Some(9))));
}

/// A program in place of the helper.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("script");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
    file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    path
}

#[test]
fn a_full_device_is_named_whichever_file_does_not_fit() {
    if !may_mount() {
        return;
    }
    let archive = Archive::small();
    let sought = Sought::from(&archive.manifest);
    let below = archive.directory.path();
    // Room for neither, and for the database inside but not for the one made from it.
    let bytes = archive.manifest.database.bytes;
    for room in [bytes / 2, bytes + bytes / 4] {
        let scratch = below.join("restore-scratch");
        let mount = format!("mount -t tmpfs -o size={room} none {} && exec {PROGRAM}", scratch.display());
        let full = Helper::new(script(below, &format!("exec unshare -m sh -c '{mount}'")));
        let error = full.restore(archive.bytes.as_slice(), &sought, &identity(), below, &|| false);
        assert!(matches!(error, Err(RestoreError::Full)), "{error:?}");
    }
}

fn may_mount() -> bool {
    has("unshare") && {
        let may =
            Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|done| done.status.success());
        if !may {
            skip("may not mount");
        }
        may
    }
}

#[test]
fn a_scratch_directory_that_cannot_be_made_is_no_fault_of_the_archive() {
    let archive = Archive::small();
    let sought = Sought::from(&archive.manifest);
    let nowhere = archive.directory.path().join("none");
    let error = helper().prove(archive.bytes.as_slice(), &sought, &identity(), &nowhere, &|| false);
    assert!(matches!(error, Err(RestoreError::Scratch(_))));
}

/// The calls of the helper that lead out of it, as `strace` sees them behind the filter.
#[test]
fn the_helper_opens_no_socket_and_no_file_but_its_own() {
    if !has("strace") {
        return;
    }
    let archive = Archive::small();
    let below = archive.directory.path();
    let log = below.join("trace");
    let traced = script(below, &format!("exec strace -f -o {} {PROGRAM}", log.display()));
    let sought = Sought::from(&archive.manifest);
    let traced =
        Helper::new(traced).restore(archive.bytes.as_slice(), &sought, &identity(), below, &|| false);
    let held = traced.map(|restored| restored.held().clone()).unwrap();
    assert_eq!(held, archive.manifest.held);

    let trace = std::fs::read_to_string(&log).unwrap();
    let confined = trace.split_once("SECCOMP_SET_MODE_FILTER").unwrap().1;
    let scratch = below.join("restore-scratch").display().to_string();
    let mut opened = 0;
    for line in confined.lines() {
        for call in ["socket(", "connect(", "execve(", "clone", "fork("] {
            assert!(!line.contains(call), "{line}");
        }
        if line.contains("openat(") && !line.contains("= -1 ") {
            let own = line.contains(&scratch) || line.contains("/dev/urandom") || line.contains("/proc/self");
            assert!(own, "{line}");
            opened += 1;
        }
    }
    assert!(opened >= 3, "the trace shows what is opened");
}
