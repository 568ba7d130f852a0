//! Who is not let in: strangers, members of other groups, those who left, and copies of a disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mfpsync_daemon::identity::Identity;
use mfpsync_daemon::keystore::FileKeyStore;
use mfpsync_daemon::net::dial::dial;
use mfpsync_daemon::tls::ClientTls;
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{LeaveRequest, ReleaseDeviceRequest};
use mfpsync_proto::sync::follow_event::Event;
use mfpsync_proto::sync::sync_client::SyncClient;
use mfpsync_proto::sync::{FollowEvent, FollowRequest, Reason};
use mfpsync_storage::Inline;
use mfpsync_storage::local::Local;
use mfpsync_tests::item::{key, patch, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, current, eventually, skip};
use ring::rand::SystemRandom;
use tonic::Streaming;

const DEADLINE: Duration = Duration::from_secs(10);

fn identity(data_dir: &Path) -> Identity {
    let store = FileKeyStore::open(data_dir.join("keys")).unwrap();
    Identity::load_or_create(&store, &SystemRandom::new()).unwrap()
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn replace_tree(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_tree(from, to);
}

async fn faulted(device: &TestDevice, codes: &[&str]) -> String {
    eventually(PATIENCE, "the fault", async || {
        let faults = device.status().await?.faults;
        let found = faults.iter().find(|fault| codes.contains(&fault.code.as_str()));
        found.map(|fault| fault.text.clone()).with_context(|| format!("{faults:?}"))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_stranger_with_a_key_of_its_own_is_told_that_it_is_unknown() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.server.log.expect("refused");
    let server = identity(&fleet.server.data_dir());
    let strange = tempfile::tempdir().unwrap();
    let stranger = identity(strange.path());
    let tls = ClientTls::sync(&stranger, server.public_key()).unwrap();
    let refused = dial(&fleet.server.address().to_string(), &tls, DEADLINE).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::UnknownDevice), "{refused}");
    current(&fleet.clients[0]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_the_one_expected_gets_nothing() {
    let mut ours = Fleet::start(1).await.unwrap();
    let other = Fleet::server_only().await.unwrap();
    let client = &mut ours.clients[0];
    for part in ["different device", "server", "impostor", "F-"] {
        client.log.expect(part);
    }
    client.stop().await.unwrap();
    client.setup.dial_only = vec![other.server.address()];
    client.start().await.unwrap();
    let item = key("user/alice", "shortcut", "secret");
    client.write(vec![put(item.clone(), vec![text("value", "ours")])]).await.unwrap();
    eventually(PATIENCE, "the attempt to fail", async || {
        let status = client.client_status().await?;
        ensure!(!status.last_error.is_empty(), "{:?}", status.link());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(client.client_status().await.unwrap().waiting, 1);
    assert!(other.server.get(&item).await.unwrap().is_none());

    let client = &mut ours.clients[0];
    client.stop().await.unwrap();
    client.setup.dial_only = vec![ours.server.address()];
    client.start().await.unwrap();
    current(client).await.unwrap();
    assert_eq!(ours.converged(&["user/alice"], PATIENCE).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_device_that_left_is_refused_when_its_old_disk_returns() {
    let mut fleet = Fleet::start(2).await.unwrap();
    fleet.server.log.expect("refused");
    let backup = tempfile::tempdir().unwrap();
    let client = &mut fleet.clients[0];
    client.log.expect("F-RELEASED");
    client.log.expect("released");
    client.stop().await.unwrap();
    copy_tree(&client.data_dir(), &backup.path().join("data"));
    client.start().await.unwrap();
    current(client).await.unwrap();
    let reply =
        client.panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap().into_inner();
    assert!(reply.slot_freed);
    client.stop().await.unwrap();
    replace_tree(&backup.path().join("data"), &client.data_dir());
    client.start().await.unwrap();
    let text = faulted(client, &["F-RELEASED"]).await;
    assert!(text.contains("pair it again"), "{text}");
    let status = client.client_status().await.unwrap();
    assert_eq!(status.link(), Link::Refused, "{}", status.last_error);
    current(&fleet.clients[1]).await.unwrap();
}

fn tls_of(fleet: &Fleet, client: usize) -> ClientTls {
    let server = identity(&fleet.server.data_dir());
    ClientTls::sync(&identity(&fleet.clients[client].data_dir()), server.public_key()).unwrap()
}

/// The follow stream of a stopped client, in the hands of a test: caught up.
async fn open_stream(fleet: &Fleet, client: usize) -> Streaming<FollowEvent> {
    let own = Inline::<Local>::open(&fleet.clients[client].own_database(), false).unwrap();
    let (device, membership) = own.read(|read| Ok((read.device()?, read.membership()?))).unwrap();
    let request = FollowRequest {
        group_id: membership.unwrap().group.0.to_vec().into(),
        incarnation: device.incarnation.0,
        ..FollowRequest::default()
    };
    let channel = dial(&fleet.server.address().to_string(), &tls_of(fleet, client), DEADLINE).await.unwrap();
    let mut stream = SyncClient::new(channel).follow(request).await.unwrap().into_inner();
    loop {
        let event = stream.message().await.unwrap().expect("a stream that goes on");
        if matches!(event.event, Some(Event::CaughtUp(_))) {
            return stream;
        }
    }
}

/// Reads a stream to its end: when that was, and how many batches came before.
async fn until_cut(stream: &mut Streaming<FollowEvent>) -> (Instant, usize) {
    let mut batches = 0;
    let end = async {
        while let Ok(Some(event)) = stream.message().await {
            batches += usize::from(matches!(event.event, Some(Event::Batch(_))));
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the stream goes on");
    (Instant::now(), batches)
}

/// Proves I-21.
#[tokio::test]
async fn a_released_device_loses_its_stream_at_once_and_gets_nothing_again_also_as_a_clone() {
    let mut fleet = Fleet::start(2).await.unwrap();
    for surprise in ["refused", "F-RELEASED", "released"] {
        fleet.server.log.expect(surprise);
        fleet.clients[0].log.expect(surprise);
    }
    let shown = key("shared", "button.shared", "before");
    fleet.server.write(vec![put(shown.clone(), vec![text("title", "before")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let id = fleet.clients[0].status().await.unwrap().device_id;
    fleet.clients[0].stop().await.unwrap();
    let mut stream = open_stream(&fleet, 0).await;
    let released = Instant::now();
    let request = ReleaseDeviceRequest { device_id: id };
    fleet.server.panel().unwrap().release_device(request).await.unwrap();
    // From the answer on nothing goes out, and what is written next meets no stream.
    let secret = key("shared", "button.shared", "after");
    fleet.server.write(vec![put(secret.clone(), vec![text("title", "after")])]).await.unwrap();
    let (got, news) = until_cut(&mut stream).await;
    println!("the released device's stream was cut {:?} after the order", got.duration_since(released));
    assert_eq!(news, 0, "batches reached a released device");
    let again = dial(&fleet.server.address().to_string(), &tls_of(&fleet, 0), DEADLINE).await.unwrap_err();
    assert_eq!(again.reason(), Some(Reason::Released), "{again}");

    fleet.clients[0].start().await.unwrap();
    let text_shown = faulted(&fleet.clients[0], &["F-RELEASED"]).await;
    assert!(text_shown.contains("pair it again"), "{text_shown}");
    eventually(PATIENCE, "the news at the device that stayed", async || {
        ensure!(fleet.clients[1].get(&secret).await?.is_some(), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert!(fleet.clients[0].get(&secret).await.unwrap().is_none());
    assert!(fleet.clients[0].get(&shown).await.unwrap().is_some(), "what it has stays readable");

    // Its disk in another machine, with another address.
    fleet.clients[0].stop().await.unwrap();
    let mut clone = TestDevice::new("clone").unwrap();
    clone.setup.dial_only = vec![fleet.server.address()];
    clone.log.expect("F-RELEASED");
    clone.log.expect("released");
    copy_tree(&fleet.clients[0].data_dir(), &clone.data_dir());
    clone.start().await.unwrap();
    fleet.clients[0].start().await.unwrap();
    for device in [&clone, &fleet.clients[0]] {
        device.write(vec![patch(shown.clone(), vec![text("title", "from outside")])]).await.unwrap();
        faulted(device, &["F-RELEASED"]).await;
        assert!(device.get(&secret).await.unwrap().is_none(), "{} got something", device.name);
    }
    let group = fleet.server.contents(&["shared"]).await.unwrap();
    assert_eq!(group.text(&shown, "title"), Some("before"));
}

#[tokio::test]
async fn a_disk_restored_from_an_older_copy_is_quarantined_and_changes_nothing() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    let item = key("shared", "button.shared", "b");
    for name in ["F-QUARANTINE", "quarantine", "older copy"] {
        fleet.clients[0].log.expect(name);
        fleet.server.log.expect(name);
    }
    fleet.clients[0].write(vec![put(item.clone(), vec![text("title", "one")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.clients[0].stop().await.unwrap();
    copy_tree(&fleet.clients[0].data_dir(), &backup.path().join("data"));
    fleet.clients[0].start().await.unwrap();
    fleet.clients[0].write(vec![patch(item.clone(), vec![text("title", "two")])]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.clients[0].stop().await.unwrap();
    replace_tree(&backup.path().join("data"), &fleet.clients[0].data_dir());
    fleet.clients[0].start().await.unwrap();
    // The number of this operation was given out before, to another edit.
    fleet.clients[0].write(vec![patch(item.clone(), vec![text("title", "from the past")])]).await.unwrap();
    let text = faulted(&fleet.clients[0], &["F-QUARANTINE"]).await;
    assert!(text.contains("older copy"), "{text}");
    assert_eq!(fleet.server.contents(&["shared"]).await.unwrap().text(&item, "title"), Some("two"));
    current(&fleet.clients[1]).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_speaks_only_older_tls_is_refused_in_the_handshake() {
    let fleet = Fleet::start(1).await.unwrap();
    let spoken = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &fleet.server.address().to_string()])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = spoken else { return skip("openssl is not installed") };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("alert protocol version") || said.contains("no protocols available"), "{said}");
    current(&fleet.clients[0]).await.unwrap();
}
