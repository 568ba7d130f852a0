//! Everything that can be wrong with the way to a server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mfpsync_backup::prune;
use mfpsync_backup::smb::{Encryption, Library, Target};
use mfpsync_backup::store::smb::SmbStore;
use mfpsync_backup::store::{Cancel, Class, Kind};
use mfpsync_backup::upload::{Patience, Progress, Upload};
use mfpsync_tests::{Mishap, Relay, ShareServer, TestShare, Way, smb_library};
use ring::digest::SHA256;
use rustix::process::Signal;

use crate::archive::{Bytes, PATIENCE, id, sound, upload, upload_with};
use crate::hooked::Hooked;
use crate::{connect, kind, refused};

const MIB: u64 = 1 << 20;

/// A store that reaches the server at another address.
fn store_at(server: &TestShare, address: SocketAddr) -> Result<SmbStore> {
    let (host, port) = (address.ip().to_string(), address.port());
    server.store(Target { host, port, patience: Duration::from_secs(2), ..server.target("backup")? })
}

#[test]
fn a_server_that_is_none_is_told_apart_from_one_that_is_silent() -> Result<()> {
    let server = ShareServer::default().start()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let silent = listener.local_addr()?;
    assert_eq!(refused(&store_at(&server, silent)?), Some(Kind::Timeout));
    drop(listener);
    assert_eq!(refused(&store_at(&server, silent)?), Some(Kind::Unreachable));

    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = http.local_addr()?;
    let answering = thread::spawn(move || -> Result<()> {
        use std::io::{Read, Write};
        let (mut stream, _) = http.accept()?;
        // What is left unread would reset the connection, perhaps before the answer is there.
        let _asked = stream.read(&mut [0; 1024])?;
        Ok(write!(stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?)
    });
    assert_eq!(refused(&store_at(&server, address)?), Some(Kind::Unreachable));
    answering.join().expect("answered")?;

    let nowhere = Target { host: "no-such-host.invalid".to_owned(), ..server.target("backup")? };
    assert_eq!(refused(&server.store(nowhere)?), Some(Kind::Unreachable));
    Ok(())
}

#[test]
fn a_network_that_swallows_everything_is_noticed() -> Result<()> {
    let server = ShareServer::default().start()?;
    // A listener whose queue is full: whoever dials it hears nothing.
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::listen(&socket, 0)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    let brief = Duration::from_millis(200);
    let filling: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&address, brief).ok()).collect();
    assert!(!filling.is_empty());
    assert_eq!(refused(&store_at(&server, address)?), Some(Kind::Unreachable));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_or_silent_in_the_middle_is_made_good() -> Result<()> {
    let server = ShareServer::default().start()?;
    let relay = Relay::open(server.address()).await?;
    let own = server.folder("backup").join("group");
    let mut archives = Vec::new();
    // While log-in goes on, while the archive is sent, and while it is read back.
    for (way, after) in [(Way::There, 300), (Way::Back, 300), (Way::There, 2 * MIB), (Way::Back, 2 * MIB)] {
        for mishap in [Mishap::Reset, Mishap::Stall] {
            relay.mishap(way, after, mishap);
            let store = store_at(&server, relay.address())?;
            let id = id(archives.len() as u64);
            let trouble = &mut Vec::new();
            let uploaded = tokio::task::block_in_place(|| {
                upload_with(&store, id, &mut Bytes::new(3_500_000), &Cancel::new()?, &mut |progress| {
                    if let Progress::Retrying(kind, _) = progress {
                        trouble.push(kind);
                    }
                })
            });
            uploaded.with_context(|| format!("{mishap:?} after {after} {way:?}: {trouble:?}"))?;
            assert!(!trouble.is_empty(), "{mishap:?} after {after} {way:?} went unnoticed");
            archives.push(id);
            assert_eq!(sound(&own)?, archives);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_turned_over_on_the_way_never_makes_a_bad_archive() -> Result<()> {
    let server = ShareServer::default().start()?;
    let relay = Relay::open(server.address()).await?;
    let own = server.folder("backup").join("group");
    let mut number = 0;
    let encryptions = match smb_library()? {
        Library::Libsmbclient => &[Encryption::Required, Encryption::Off][..],
        Library::Native => &[Encryption::Off],
    };
    for &encryption in encryptions {
        for (way, after) in [(Way::There, 2 * MIB), (Way::Back, 2 * MIB), (Way::There, 900), (Way::Back, 900)]
        {
            relay.mishap(way, after + 13, Mishap::Flip);
            let address = relay.address();
            let (host, port) = (address.ip().to_string(), address.port());
            let store = server.store(Target { host, port, encryption, ..server.target("backup")? })?;
            number += 1;
            let uploaded =
                tokio::task::block_in_place(|| upload(&store, id(number), &mut Bytes::new(3_500_000)));
            let there = sound(&own)?.contains(&id(number));
            // Refused, or sent again: both are well. What exists is whole.
            assert_eq!(there, uploaded.is_ok(), "{encryption:?} {way:?} {after}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_server_gets_its_archive() -> Result<()> {
    let server = ShareServer::default().start()?;
    let relay = Relay::open(server.address()).await?;
    relay.delay(Duration::from_millis(25));
    let store = store_at(&server, relay.address())?;
    tokio::task::block_in_place(|| upload(&store, id(1), &mut Bytes::new(2_000_000)))?;
    assert_eq!(sound(&server.folder("backup").join("group"))?, [id(1)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_rename_is_settled_by_looking() -> Result<()> {
    let server = ShareServer::default().start()?;
    let relay = Arc::new(Relay::open(server.address()).await?);
    let own = server.folder("backup").join("group");
    let settled = Arc::new(AtomicBool::new(false));
    let mut archives = Vec::new();
    // The library asks several things for a rename: each of the answers is lost once.
    for after in (0..2_000).step_by(100) {
        let (relay, settled, place) = (relay.clone(), settled.clone(), own.join(id(after).data().as_str()));
        let address = relay.address();
        let armed = AtomicBool::new(false);
        let hook = Arc::new(move |call: &'static str| match call {
            "rename" if !armed.swap(true, Ordering::Relaxed) => relay.mishap(Way::Back, after, Mishap::Reset),
            // The rename failed, as far as the job can see.
            "connect" if armed.load(Ordering::Relaxed) && place.exists() => {
                settled.store(true, Ordering::Relaxed)
            }
            _ => {}
        });
        let store = Hooked { store: store_at(&server, address)?, hook };
        tokio::task::block_in_place(|| upload(&store, id(after), &mut Bytes::new(9)))?;
        archives.push(id(after));
        assert_eq!(sound(&own)?, archives);
    }
    assert!(settled.load(Ordering::Relaxed), "no answer was lost after the fact");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_whose_answer_is_lost_is_done() -> Result<()> {
    let server = ShareServer::default().start()?;
    let relay = Relay::open(server.address()).await?;
    let store = store_at(&server, relay.address())?;
    let own = server.folder("backup").join("group");
    let mut lost = false;
    tokio::task::block_in_place(|| -> Result<()> {
        connect(&store)?;
        for after in (0..2_000).step_by(100) {
            for luck in [1, 2] {
                std::fs::write(own.join(id(luck).data().as_str()), "data")?;
                std::fs::write(
                    own.join(id(luck).manifest().as_str()),
                    ring::digest::digest(&SHA256, b"data"),
                )?;
            }
            let share = &mut *connect(&store)?;
            relay.mishap(Way::Back, after, Mishap::Reset);
            let removed = prune::remove(share, &[id(1)], &mut |_| ());
            lost |= removed.is_err() && sound(&own)? == [id(2)];
            relay.mishap(Way::Back, u64::MAX, Mishap::Reset);
            prune::remove(&mut *connect(&store)?, &[id(1)], &mut |_| ())?;
            assert_eq!((sound(&own)?, std::fs::read_dir(&own)?.count()), (vec![id(2)], 2));
        }
        Ok(())
    })?;
    assert!(lost, "no answer was lost after the fact");
    Ok(())
}

#[test]
fn a_server_that_stops_is_given_up_in_time_and_holds_nobody_else_up() -> Result<()> {
    let (stopped, other) = (ShareServer::default().start()?, ShareServer::default().start()?);
    let target = Target { patience: Duration::from_secs(1), ..stopped.target("backup")? };
    let store = stopped.store(target)?;
    let share = &mut *connect(&store)?;
    stopped.sessions()?.iter().for_each(|session| session.signal(Signal::STOP));
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| {
            let share = &mut *connect(&store)?;
            share.list()
        });
        upload(&other.store(other.target("backup")?)?, id(1), &mut Bytes::new(9))?;
        // libsmbclient may have noticed, and connected anew by itself.
        assert!(kind(share.list()).is_none_or(|kind| kind.class() == Class::Retry));
        // A new session is served by a process of its own.
        waiting.join().expect("waited")?;
        Ok(())
    })
}

#[test]
fn a_job_told_to_end_does_not_wait_for_a_server() -> Result<()> {
    let server = ShareServer::default().start()?;
    let target = Target { patience: Duration::from_secs(600), ..server.target("backup")? };
    let store = server.store(target)?;
    let cancel = Cancel::new()?;
    let switch = cancel.clone();
    let uploaded = upload_with(&store, id(1), &mut Bytes::new(30 << 20), &cancel, &mut |progress| {
        if let Progress::Sending(mark) = progress
            && mark.taken == 3 * MIB
        {
            let sessions = server.sessions().expect("sessions");
            sessions.iter().for_each(|session| session.signal(Signal::STOP));
            let switch = switch.clone();
            thread::spawn(move || switch.cancel());
        }
    });
    assert_eq!(kind(uploaded), Some(Kind::Cancelled));
    assert_eq!(std::fs::read_dir(server.scratch())?.count(), 0);
    Ok(())
}

#[test]
fn a_server_that_restarts_between_jobs_is_reached_again() -> Result<()> {
    let mut server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    upload(&store, id(1), &mut Bytes::new(9))?;
    server.stop()?;
    let patience = Patience { failures: 1, ..PATIENCE };
    let (cancel, observe) = (Cancel::new()?, &mut |_| ());
    let job = Upload { store: &store, cancel: &cancel, id: id(2), patience, resume: None, observe };
    assert_eq!(kind(job.run(&mut Bytes::new(9))), Some(Kind::Unreachable));
    server.listen()?;
    upload(&store, id(2), &mut Bytes::new(9))?;
    assert_eq!(sound(&server.folder("backup").join("group"))?, [id(1), id(2)]);
    Ok(())
}
