//! Files that somebody else has open, so that they can neither be renamed nor removed.

use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mfpsync_backup::prune;
use mfpsync_backup::store::{Cancel, Kind, Name};
use mfpsync_backup::upload::Progress;
use mfpsync_tests::{PATIENCE, SHARE_PASSWORD, ShareServer, TestShare};

use crate::archive::{Bytes, id, sound, upload, upload_with};
use crate::{connect, kind};

/// Somebody else at another machine, with a file open; others may read and write it meanwhile.
struct Holder {
    client: Child,
    _commands: ChildStdin,
}

impl Holder {
    fn open(server: &TestShare, name: &Name) -> Result<Self> {
        let (address, user, before) = (server.address(), server.user(), server.opens(name.as_str())?);
        let mut client = Command::new("smbclient")
            .arg(format!("//{}/backup", address.ip()))
            .args(["--port", &address.port().to_string(), "--user", user])
            .env("PASSWD", SHARE_PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start smbclient")?;
        let mut commands = client.stdin.take().context("no input")?;
        writeln!(commands, "open group/{name}")?;
        let holder = Self { client, _commands: commands };
        let end = Instant::now() + PATIENCE;
        while server.opens(name.as_str())? <= before {
            ensure!(Instant::now() < end, "it is not opened");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(holder)
    }

    fn let_go(mut self, server: &TestShare, name: &Name) -> Result<()> {
        self.client.kill()?;
        self.client.wait()?;
        let end = Instant::now() + PATIENCE;
        while server.opens(name.as_str())? > 0 {
            ensure!(Instant::now() < end, "it is not closed");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been let go.
        let _ended = (self.client.kill(), self.client.wait());
    }
}

#[test]
fn a_part_that_somebody_holds_is_left_to_them_for_another_one() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let store = server.store(server.target("backup")?)?;
    let (part, mut holder, mut busy) = (id(1).part(0), None, 0);
    upload_with(
        &store,
        id(1),
        &mut Bytes::new(1_500_000),
        &Cancel::new()?,
        &mut |progress| match progress {
            // Whoever writes it may let nobody else in.
            Progress::Proving(_) if holder.is_none() => {
                holder = Some(Holder::open(&server, &part).expect("hold"))
            }
            Progress::Retrying(Kind::Busy, _) => busy += 1,
            _ => {}
        },
    )?;
    assert!(busy > 0, "nobody was in the way");
    assert_eq!(sound(&own)?, [id(1)]);
    assert!(own.join(part.as_str()).exists());
    let share = &mut *connect(&store)?;
    assert_eq!(kind(prune::sweep(share, std::slice::from_ref(&part))), Some(Kind::Busy));
    holder.context("nobody held it")?.let_go(&server, &part)?;
    prune::sweep(&mut *connect(&store)?, &[part])?;
    assert_eq!((sound(&own)?, fs::read_dir(&own)?.count()), (vec![id(1)], 2));
    Ok(())
}

#[test]
fn an_archive_that_somebody_reads_goes_later() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let store = server.store(server.target("backup")?)?;
    for name in [id(1).manifest(), id(1).data()] {
        for luck in [1, 2] {
            upload(&store, id(luck), &mut Bytes::new(9))?;
        }
        let holder = Holder::open(&server, &name)?;
        let mut removed = Vec::new();
        let refused = prune::remove(&mut *connect(&store)?, &[id(1)], &mut |id| removed.push(id));
        assert_eq!(kind(refused), Some(Kind::Busy));
        // It has ended to exist, or is there as a whole.
        assert_eq!(sound(&own)?.contains(&id(1)), removed.is_empty());
        holder.let_go(&server, &name)?;
        prune::remove(&mut *connect(&store)?, &[id(1), id(2)], &mut |_| ())?;
        assert_eq!(fs::read_dir(&own)?.count(), 0);
    }
    Ok(())
}
