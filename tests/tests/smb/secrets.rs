//! The password is where it must be, and nowhere else; and the helper outlives nobody.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::Result;
use mfpsync_backup::smb::protocol::{Request, send};
use mfpsync_backup::smb::{Library, Target};
use mfpsync_tests::{SHARE_PASSWORD, ShareServer, skip, smb_helper_path, smb_library};

use crate::connect;

#[test]
fn the_password_is_in_no_argument_variable_file_or_log() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("may not look at helpers");
        return Ok(());
    }
    let server = ShareServer::default().with("log level = 10").start()?;
    let store = server.store(server.target("backup")?)?;
    let mut share = connect(&store)?;
    share.list()?;
    let helpers = server.helpers()?;
    assert_eq!(helpers.len(), 1);
    let process = format!("/proc/{}", helpers[0].as_raw_nonzero());
    let mut seen = vec![fs::read(format!("{process}/cmdline"))?, fs::read(format!("{process}/environ"))?];
    let mut folders = vec![server.scratch()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { seen.push(fs::read(path)?) }
        }
    }
    // What libsmbclient is told is in a file.
    let told = seen.iter().any(|bytes| contains(bytes, "client signing = required"));
    assert_eq!(told, smb_library()? == Library::Libsmbclient);
    seen.push(format!("{store:?}").into_bytes());
    for bytes in seen {
        assert!(!contains(&bytes, SHARE_PASSWORD), "{}", String::from_utf8_lossy(&bytes));
    }
    // Nor does it leave a dump.
    let limits = fs::read_to_string(format!("{process}/limits"))?;
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(cores.map(|line| line.split_whitespace().filter(|word| *word == "0").count()), Some(2));
    Ok(())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_helper_ends_with_whoever_started_it_also_while_it_waits() -> Result<()> {
    let server = ShareServer::default().start()?;
    // Nobody answers there: the helper waits in the library.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = silent.local_addr()?.port();
    let patience = std::time::Duration::from_secs(600);
    let target = Target { host: "127.0.0.1".to_owned(), port, patience, ..server.target("backup")? };
    let home = server.scratch();
    let mut helper = Command::new(smb_helper_path()?)
        .env_clear()
        .env("HOME", &home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut requests = helper.stdin.take().expect("a pipe");
    send(&mut requests, &Request::Begin(Box::new(target)).encode())?;
    let (_dialled, _) = silent.accept()?;
    drop(requests);
    helper.wait()?;
    Ok(())
}

#[test]
fn a_helper_says_under_which_terms_it_comes() -> Result<()> {
    let gpl = smb_library()? == Library::Libsmbclient;
    for option in ["--help", "--version"] {
        let output = Command::new(smb_helper_path()?).arg(option).output()?;
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout)?;
        let says_so = text.contains("GPL") || text.contains("GNU General Public License");
        assert_eq!(says_so, gpl, "{text}");
    }
    Ok(())
}

#[test]
fn what_is_no_request_ends_the_helper() -> Result<()> {
    use std::io::Write;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 0], &[0, 0, 0, 1, 99]] {
        let mut helper = Command::new(smb_helper_path()?)
            .env("HOME", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        helper.stdin.take().expect("a pipe").write_all(garbage)?;
        let output = helper.wait_with_output()?;
        assert!(!output.status.success() && output.stdout.is_empty());
    }
    Ok(())
}
