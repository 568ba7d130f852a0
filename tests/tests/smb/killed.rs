//! Helper and server killed at every step: never is a bad archive one that exists.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use mfpsync_backup::prune;
use mfpsync_backup::store::Cancel;
use mfpsync_backup::survey::Survey;
use mfpsync_backup::upload::{Mark, Progress, Upload};
use mfpsync_tests::{ShareServer, TestShare, skip};
use rustix::process::{Signal, kill_process};

use crate::archive::{Bytes, PATIENCE, id, sound, upload, upload_with};
use crate::connect;
use crate::hooked::{Hook, Hooked};

/// Whom to kill.
#[derive(Clone, Copy)]
enum Victim {
    Helper,
    Session,
}

fn kill(server: &TestShare, victim: Victim) -> Result<()> {
    match victim {
        Victim::Helper => {
            for helper in server.helpers()? {
                kill_process(helper, Signal::KILL)?;
            }
        }
        Victim::Session => server.sessions()?.iter().for_each(|session| session.signal(Signal::KILL)),
    }
    Ok(())
}

/// The calls of a job, and a strike before one of them, counted from 0.
#[derive(Clone)]
struct Calls {
    seen: Arc<Mutex<Vec<&'static str>>>,
    failed: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Calls {
    fn struck_at(number: usize, strike: impl Fn() -> Result<()> + 'static) -> (Self, Hook) {
        let calls = Self { seen: Arc::default(), failed: Arc::default() };
        let Self { seen, failed } = calls.clone();
        let hook = move |call| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() == number {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = strike().err();
            }
            seen.push(call);
        };
        (calls, Arc::new(hook))
    }

    fn seen(&self) -> Result<Vec<&'static str>> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)?;
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Uploads one archive for each call that an upload makes, the victim killed before that call.
fn killed_at_every_step(victim: Victim) -> Result<()> {
    let server = Arc::new(ShareServer::default().start()?);
    let own = server.folder("backup").join("group");
    let mut archives = Vec::new();
    for number in 0.. {
        let struck = Arc::clone(&server);
        let (calls, hook) = Calls::struck_at(number, move || kill(&struck, victim));
        let store = Hooked { store: server.store(server.target("backup")?)?, hook };
        let archive = &mut Bytes::new(1_500_000);
        archives.push(id(number as u64));
        upload(&store, id(number as u64), archive).with_context(|| format!("killed before call {number}"))?;
        assert_eq!(sound(&own)?, archives);
        let calls = calls.seen()?;
        if number >= calls.len() {
            assert!(calls.contains(&"rename") && calls.len() > 10, "{calls:?}");
            break;
        }
    }
    Ok(())
}

#[test]
fn a_helper_killed_at_any_step_is_replaced() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("may not look at helpers");
        return Ok(());
    }
    killed_at_every_step(Victim::Helper)
}

#[test]
fn a_server_killed_at_any_step_of_an_upload_gets_it_all_the_same() -> Result<()> {
    killed_at_every_step(Victim::Session)
}

#[test]
fn a_server_killed_while_an_archive_is_sent_gets_the_rest_of_it() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let archive = &mut Bytes::new(40 << 20);
    let (mut sent, mut killed, mut publishing) = (0, false, false);
    upload_with(&store, id(1), archive, &Cancel::new()?, &mut |progress| match progress {
        Progress::Sending(mark) if !publishing => {
            assert!(mark.turn == 0 && mark.taken > sent, "what the server had is sent again");
            sent = mark.taken;
            if sent >= 20 << 20 && !killed {
                killed = true;
                kill(&server, Victim::Session).expect("kill");
            }
        }
        Progress::Publishing => publishing = true,
        _ => {}
    })?;
    assert!(killed);
    assert_eq!(sound(&server.folder("backup").join("group"))?, [id(1)]);
    Ok(())
}

#[test]
fn a_job_that_was_begun_before_a_restart_goes_on_where_it_was() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let (cancel, archive) = (Cancel::new()?, &mut Bytes::new(9 << 20));
    let mut left = None;
    let store = server.store(server.target("backup")?)?;
    let first = upload_with(&store, id(1), archive, &cancel, &mut |progress| {
        if let Progress::Sending(mark) = progress {
            left = Some(mark);
            if mark.taken >= 4 << 20 {
                cancel.cancel();
            }
        }
    });
    assert!(first.is_err() && sound(&own)?.is_empty());
    let (cancel, mut begin) = (Cancel::new()?, None);
    let observe = &mut |progress| {
        if let Progress::Sending(mark) = progress {
            begin.get_or_insert(mark);
        }
    };
    let store = server.store(server.target("backup")?)?;
    Upload { store: &store, cancel: &cancel, id: id(1), patience: PATIENCE, resume: left, observe }
        .run(archive)?;
    assert_eq!(begin, Some(Mark { turn: 0, taken: 5 << 20 }));
    assert_eq!(sound(&own)?, [id(1)]);
    Ok(())
}

#[test]
fn pruning_cut_off_at_any_step_is_finished_by_the_next() -> Result<()> {
    let server = Arc::new(ShareServer::default().start()?);
    let own = server.folder("backup").join("group");
    let plain = server.store(server.target("backup")?)?;
    for number in 1..=4 {
        for luck in 1..=3 {
            upload(&plain, id(luck), &mut Bytes::new(9))?;
        }
        let struck = Arc::clone(&server);
        let (calls, hook) = Calls::struck_at(number, move || kill(&struck, Victim::Session));
        let store = Hooked { store: server.store(server.target("backup")?)?, hook };
        let going = [id(1), id(2)];
        // libsmbclient may have connected anew by itself: then it is done at once.
        let _cut = prune::remove(&mut *connect(&store)?, &going, &mut |_| ());
        assert!(calls.seen()?.len() > number);
        sound(&own)?;
        prune::remove(&mut *connect(&plain)?, &going, &mut |_| ())?;
        assert_eq!(sound(&own)?, [id(3)]);
        let share = &mut *connect(&plain)?;
        let survey = Survey::take(share)?;
        assert_eq!(survey.archives.keys().copied().collect::<Vec<_>>(), [id(3)]);
        prune::remove(share, &[id(3)], &mut |_| ())?;
        assert_eq!(fs::read_dir(&own)?.count(), 0);
    }
    Ok(())
}

#[test]
fn whoever_lists_the_folder_sees_whole_archives_only_while_two_jobs_write() -> Result<()> {
    const SIZE: usize = 3_000_000;
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let (over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let server = &server;
                scope.spawn(move || -> Result<()> {
                    let store = server.store(server.target("backup")?)?;
                    for turn in 0..2 {
                        upload(&store, id(writer * 10 + turn), &mut Bytes::new(SIZE))?;
                    }
                    Ok(())
                })
            })
            .collect();
        let reader = scope.spawn(|| -> Result<()> {
            let store = server.store(server.target("backup")?)?;
            let share = &mut *connect(&store)?;
            while !over.load(Ordering::Relaxed) {
                for (id, found) in Survey::take(share)?.archives {
                    ensure!(found.size.is_none_or(|size| size == SIZE as u64), "{id} is there in part");
                    ensure!(
                        found.manifest.is_none_or(|manifest| manifest.len() == 32),
                        "{id} is described in part"
                    );
                }
                looks.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let written: Result<Vec<()>> =
            writers.into_iter().map(|writer| writer.join().expect("writer")).collect();
        over.store(true, Ordering::Relaxed);
        reader.join().expect("reader")?;
        written.map(drop)
    })?;
    assert!(looks.into_inner() > 0);
    assert_eq!(sound(&own)?, [id(0), id(1), id(10), id(11)]);
    Ok(())
}

#[test]
fn a_hundred_connections_leave_nothing_behind() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    for _ in 0..100 {
        connect(&store)?.list()?;
    }
    assert_eq!(fs::read_dir(server.scratch())?.count(), 0);
    assert!(!rustix::process::geteuid().is_root() || server.helpers()?.is_empty());
    Ok(())
}
