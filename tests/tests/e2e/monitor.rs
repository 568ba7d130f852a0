//! What an operator watches a device by: the communication log, metrics, and the configuration read
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use mfpsync_proto::monitor::monitor_client::MonitorClient;
use mfpsync_proto::monitor::{Communication, CommunicationsRequest, Level, MetricsRequest, ReloadRequest};
use mfpsync_proto::panel::{Durability, JoinPolicy, ReleaseDeviceRequest};
use mfpsync_tests::item::{key, put, text};

use mfpsync_tests::{
    Fleet, PATIENCE, Port, TestDevice, command_path, current, eventually, join, open_pairing,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::replica::{caught_up, is_proven, with_replica};

pub(crate) fn monitor(device: &TestDevice) -> MonitorClient<Channel> {
    let uri = format!("unix://{}", device.run_dir().join("panel.sock").display());
    MonitorClient::new(Endpoint::from_shared(uri).unwrap().connect_lazy())
}

async fn entries(device: &TestDevice, request: CommunicationsRequest) -> Vec<Communication> {
    monitor(device).communications(request).await.unwrap().into_inner().entries
}

fn mfpsync(device: &TestDevice, arguments: &[&str]) -> Output {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(arguments).output().unwrap()
}

async fn logged(device: &TestDevice, code: &str) -> Communication {
    eventually(PATIENCE, &format!("{code} at {}", device.name), async || {
        let request = CommunicationsRequest { codes: vec![code.to_owned()], ..Default::default() };
        let found = monitor(device).communications(request).await?.into_inner().entries;
        found.into_iter().next().context("not there")
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn what_happens_between_devices_is_in_the_log_of_both() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.server.log.expect("pairing refused");
    fleet.clients[0].log.expect("F-RELEASED");
    fleet.clients[0].log.expect("released");
    let id = fleet.clients[0].status().await.unwrap().device_id;
    let server_id = fleet.server.status().await.unwrap().device_id;
    assert_eq!(logged(&fleet.clients[0], "C-PAIRED").await.peer_device_id, server_id);
    assert_eq!(logged(&fleet.clients[0], "C-CAUGHT-UP").await.peer_name, "server");
    let joined = logged(&fleet.server, "C-MEMBER-JOINED").await;
    assert_eq!((joined.peer_device_id, joined.level), (id.clone(), Level::Notice.into()));
    logged(&fleet.server, "C-PAIRING-OPENED").await;

    let edit = put(key("user/alice", "ui.language", "language"), vec![text("tag", "ja")]);
    fleet.clients[0].write(vec![edit]).await.unwrap();
    assert_eq!(logged(&fleet.clients[0], "C-PUSHED").await.counts["accepted"], 1);
    let pushed = CommunicationsRequest {
        codes: vec!["C-DEVICE-PUSHED".to_owned()],
        peer: "client-1".to_owned(),
        ..Default::default()
    };
    assert_eq!(entries(&fleet.server, pushed).await[0].counts["accepted"], 1);

    fleet.cut(0).await.unwrap();
    let lost = logged(&fleet.clients[0], "C-LOST").await;
    assert!(!lost.reason.is_empty());
    let away = eventually(PATIENCE, "attempts to fold", async || {
        let away = logged(&fleet.clients[0], "C-UNREACHABLE").await;
        ensure!(away.times > 1, "{away:?}");
        Ok(away)
    });
    assert!(away.await.unwrap().last_unix_millis > 0);
    fleet.mend(0).await.unwrap();

    let stranger = TestDevice::started("stranger").await.unwrap();
    let address = fleet.server.address().to_string();
    open_pairing(&fleet.server).await.unwrap();
    join(&stranger, &address, "00000000", JoinPolicy::Merge).await.unwrap_err();
    assert_eq!(logged(&fleet.server, "C-PAIRING-REFUSED").await.reason, "pairing-code");
    assert_eq!(logged(&stranger, "C-NOT-PAIRED").await.reason, "pairing-code");

    let request = ReleaseDeviceRequest { device_id: id.clone() };
    fleet.server.panel().unwrap().release_device(request).await.unwrap();
    assert_eq!(logged(&fleet.server, "C-MEMBER-RELEASED").await.peer_device_id, id);
    assert_eq!(logged(&fleet.clients[0], "C-REFUSED").await.reason, "released");
    assert_eq!(logged(&fleet.clients[0], "C-FAULT").await.reason, "F-RELEASED");

    let file = fleet.server.data_dir().join("communication.log");
    let everything = eventually(PATIENCE, "the release to be written", async || {
        let written = fs::read_to_string(&file)?;
        ensure!(written.contains("C-MEMBER-RELEASED"), "{written}");
        Ok(written)
    });
    let everything = everything.await.unwrap();
    assert!(!everything.contains("alice"), "{everything}");
    let bad = CommunicationsRequest { codes: vec!["C-NOTHING".to_owned()], ..Default::default() };
    let refused = monitor(&fleet.server).communications(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_log_outlives_a_kill_and_a_torn_line_and_can_be_followed() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let file = fleet.server.data_dir().join("communication.log");
    eventually(PATIENCE, "the log to be written", async || {
        let written = fs::read_to_string(&file)?;
        ensure!(written.contains("C-MEMBER-JOINED"), "{written}");
        Ok(())
    })
    .await
    .unwrap();
    let joined = logged(&fleet.server, "C-MEMBER-JOINED").await;
    fleet.server.kill().unwrap();
    let mut content = fs::read(&file).unwrap();
    content.extend_from_slice(b"{\"number\":99,\"first\"");
    fs::write(&file, content).unwrap();
    fleet.server.start().await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    assert_eq!(logged(&fleet.server, "C-MEMBER-JOINED").await, joined);

    let only = CommunicationsRequest { codes: vec!["C-PAIRING-OPENED".to_owned()], ..Default::default() };
    let mut events = monitor(&fleet.server).follow_communications(only).await.unwrap().into_inner();
    open_pairing(&fleet.server).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
    assert!(event.number > joined.number);
    assert_eq!(event.code, "C-PAIRING-OPENED");
    drop(events);

    for (name, lines) in [("log.csv", "number,first,last,"), ("log.jsonl", "{\"address\":")] {
        let file = fleet.server.home().join(name);
        let download = ["log", "--level", "notice", "--download", file.to_str().unwrap()];
        assert!(mfpsync(&fleet.server, &download).status.success());
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(lines) && text.contains("C-MEMBER-JOINED"), "{text}");
        assert!(!text.contains("C-DEVICE-CONNECTED"), "{text}");
        assert!(!mfpsync(&fleet.server, &download).status.success(), "a file that is there is left alone");
    }

    fleet.server.restart().await.unwrap();
    assert_eq!(logged(&fleet.server, "C-PAIRING-OPENED").await.number, event.number);
    let first = CommunicationsRequest { limit: 1, ..Default::default() };
    let page = monitor(&fleet.server).communications(first).await.unwrap().into_inner();
    let next = CommunicationsRequest { limit: 1, before_number: page.next, ..Default::default() };
    assert!(entries(&fleet.server, next).await[0].number < page.entries[0].number);
}

/// Families with their samples; fails on what is no exposition.
fn parsed(text: &str) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone(), Vec::new()).is_none(), "{family} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} under {family}");
            families.get_mut(&family).unwrap().push((name.to_owned(), value.parse().unwrap()));
        }
    }
    families
}

async fn http(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn metrics_are_those_documented_and_come_over_both_ways() {
    let fleet = with_replica(1, Durability::Async).await;
    let edit = put(key("user/alice", "ui.language", "language"), vec![text("tag", "ja")]);
    fleet.clients[0].write(vec![edit]).await.unwrap();
    logged(&fleet.server, "C-DEVICE-PUSHED").await;
    logged(&fleet.clients[0], "C-PUSHED").await;
    caught_up(&fleet, 0).await;
    is_proven(&fleet).await;
    let operations = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md"));
    let operations = operations.unwrap();
    let documented: BTreeSet<&str> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("mfpsync_") || name.starts_with("process_"))
        .collect();
    let text = monitor(&fleet.server).metrics(MetricsRequest {}).await.unwrap().into_inner().text;
    let server = parsed(&text);
    assert_eq!(server.keys().map(String::as_str).collect::<BTreeSet<_>>(), documented);
    let reply = eventually(PATIENCE, "the server to say where it stands", async || {
        let reply = monitor(&fleet.clients[0]).metrics(MetricsRequest {}).await?.into_inner();
        ensure!(reply.text.contains("\nmfpsync_copy_behind_changes "), "{}", reply.text);
        Ok(reply)
    });
    let reply = reply.await.unwrap();
    let client = parsed(&reply.text);
    // The server is its own client, the client the replica: every family has a sample at its place. Those of archives have
    // theirs in `backup`.
    let empty: Vec<_> = server
        .iter()
        .filter(|(name, _)| !name.starts_with("mfpsync_archive_"))
        .filter(|(name, samples)| {
            if name.starts_with("mfpsync_copy_") { &client[*name] } else { *samples }.is_empty()
        })
        .map(|(name, _)| name)
        .collect();
    assert!(empty.is_empty(), "{empty:?}");
    let value = |families: &BTreeMap<String, Vec<(String, f64)>>, name: &str| {
        let all = families.values().flatten();
        all.clone().find(|(sample, _)| sample == name).map(|(_, value)| *value).unwrap_or(-1.0)
    };
    assert!(value(&server, "mfpsync_server_operations_total{outcome=\"accepted\"}") >= 1.0);
    assert!(value(&server, "mfpsync_server_followers") >= 1.0);
    assert!(value(&server, "mfpsync_database_commit_seconds_count{database=\"master\"}") >= 1.0);
    assert_eq!(value(&server, "mfpsync_role_running{role=\"server+client\"}"), 1.0, "{text}");
    let head = value(&server, "mfpsync_server_head_sequence");
    for (place, name, expected) in [
        (&server, "mfpsync_replica_connected", 1.0),
        (&server, "mfpsync_replica_live", 1.0),
        (&server, "mfpsync_replica_safe_sequence", head),
        (&server, "mfpsync_replica_behind_transactions", 0.0),
        (&server, "mfpsync_replica_behind_seconds", 0.0),
        (&server, "mfpsync_replica_lacking_pages", 0.0),
        (&server, "mfpsync_replica_unprotected", 0.0),
        (&server, "mfpsync_replica_proof_wrong", 0.0),
        (&client, "mfpsync_copy_connected", 1.0),
        (&client, "mfpsync_copy_position_sequence", head),
        (&client, "mfpsync_copy_proof_wrong", 0.0),
    ] {
        assert_eq!(value(place, name), expected, "{name}");
    }
    assert!(value(&server, "mfpsync_replica_lag_seconds_count") >= 1.0);
    assert!(
        value(&server, "mfpsync_replica_sent_parts_total")
            >= value(&client, "mfpsync_copy_transactions_total")
    );
    assert!(value(&client, "mfpsync_copy_transactions_total") >= 2.0, "the first copy, and the edit");
    let (parts, bytes) = ("mfpsync_copy_received_parts_total", "mfpsync_copy_received_bytes_total");
    assert_eq!(value(&client, parts), value(&server, "mfpsync_replica_sent_parts_total"));
    assert!(value(&client, bytes) > 0.0 && value(&server, "mfpsync_replica_sent_bytes_total") > 0.0);
    assert!(client["mfpsync_server_head_sequence"].is_empty());
    assert!(value(&client, "mfpsync_client_operations_total{outcome=\"accepted\"}") >= 1.0);
    assert_eq!(value(&client, "mfpsync_client_current"), 1.0);
    assert!(!text.contains("alice") && !reply.text.contains("alice"));
}

#[tokio::test]
async fn a_reload_applies_what_it_can_and_a_bad_file_changes_nothing() {
    let mut device = TestDevice::started("copier").await.unwrap();
    device.log.expect("after a restart");
    device.log.expect("stays as it was");
    let base = fs::read_to_string(device.config_path()).unwrap();
    let port = Port::reserve().unwrap();
    let metrics = format!("\n[metrics]\nlisten = \"{}\"\n", port.address());
    let address = port.address();
    fs::write(
        device.config_path(),
        format!(
            "{base}{metrics}[history]\ndays = 9\n[limits]\nconnections = 9\n[local]\nallow_uids = [4711]\n"
        ),
    )
    .unwrap();
    let reply = monitor(&device).reload(ReloadRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.applied, ["limits.connections", "history.days", "metrics.listen"]);
    assert_eq!(reply.after_restart, ["local.allow_uids"]);
    let scrape = async || http(address, "GET /metrics").await;
    let answer = eventually(PATIENCE, "metrics over HTTP", scrape).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(parsed(body).contains_key("mfpsync_build_info"));
    assert!(http(address, "POST /metrics").await.unwrap().starts_with("HTTP/1.1 405 "));
    assert!(http(address, "GET /").await.unwrap().starts_with("HTTP/1.1 404 "));

    fs::write(device.config_path(), format!("{base}[history]\ndays = -1\nyears = 3\n")).unwrap();
    let refused = monitor(&device).reload(ReloadRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for part in ["history.days", "history.years", "the former settings hold"] {
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    http(address, "GET /metrics").await.unwrap();

    fs::write(device.config_path(), &base).unwrap();
    let reply = monitor(&device).reload(ReloadRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.applied, ["limits.connections", "history.days", "metrics.listen"]);
    eventually(PATIENCE, "the port to be closed", async || {
        ensure!(TcpStream::connect(address).await.is_err(), "open");
        Ok(())
    })
    .await
    .unwrap();
}
