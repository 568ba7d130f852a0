//! Whole commands, from their command line to their exit code, against the fake daemon.

use std::fs;

use clap::Parser;
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{ClientStatus, Fault, JoinPolicy, RolePhase};

use super::*;
use crate::args::Cli;
use crate::exit::{Exit, Failure};

const SAMPLE: &[u8] = include_bytes!("../../../tests/samples/address-list.csv");

/// Runs a command line against the fake, as `main` would.
async fn run(fake: &Fake, words: &[&str]) -> Result<Exit, Failure> {
    let run_dir = fake.run.path().to_str().unwrap();
    let line = ["mfpsync", "--json", "--run", run_dir].into_iter().chain(words.iter().copied());
    crate::command::run(Cli::try_parse_from(line).unwrap()).await
}

fn status(running: Role, phase: RolePhase) -> StatusReply {
    StatusReply {
        wanted: Role::Server.into(),
        running: running.into(),
        phase: phase.into(),
        ..StatusReply::default()
    }
}

fn write_file(fake: &Fake, name: &str, bytes: &[u8]) -> String {
    let path = fake.path(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn starting_a_server_saves_the_kit_and_waits_for_the_role() {
    let fake = Fake::start();
    fake.state().statuses =
        vec![status(Role::Idle, RolePhase::Starting), status(Role::Server, RolePhase::Running)];
    let pass = write_file(&fake, "pass", b"twelve characters\n");
    let kit = fake.path("kit.age");
    let line = [
        "role",
        "start-server",
        "--group",
        "Lab",
        "--kit",
        kit.to_str().unwrap(),
        "--passphrase-file",
        &pass,
    ];
    assert_eq!(run(&fake, &line).await.unwrap(), Exit::Ok);
    assert_eq!(fs::read_to_string(&kit).unwrap(), "armored kit\n");
    assert_eq!(fake.state().prepared[0].kit_passphrase, "twelve characters");
    assert_eq!(fake.state().founded, ["a1"], "as it was prepared");

    // Pressed again: the file is in the way, and the daemon is not even asked.
    assert!(run(&fake, &line).await.is_err());
    assert_eq!(fake.state().prepared.len(), 1);

    // With another file: the group exists, there is no kit, and no empty file is left.
    let other = fake.path("other.age");
    let line = [
        "role",
        "start-server",
        "--group",
        "Lab",
        "--kit",
        other.to_str().unwrap(),
        "--passphrase-file",
        &pass,
    ];
    assert_eq!(run(&fake, &line).await.unwrap(), Exit::Ok);
    assert!(!other.exists());
}

#[tokio::test]
async fn a_kit_is_safe_before_the_group_is_founded() {
    let fake = Fake::start();
    fake.state().statuses = vec![status(Role::Server, RolePhase::Running)];
    let pass = write_file(&fake, "pass", b"twelve characters\n");
    let start = async |kit: &str| {
        let line = ["role", "start-server", "--group", "Lab", "--kit", kit, "--passphrase-file", &pass];
        run(&fake, &line).await
    };
    // There is no place for the kit: the daemon is not even asked.
    let no_place = start("/dev/null/kit.age").await.unwrap_err();
    assert!(matches!(no_place, Failure::File { .. }), "{no_place}");
    assert!(fake.state().prepared.is_empty());

    // Nothing says for certain that the group was not founded: the kit stays, and a person is told.
    fake.state().refuses_to_found = true;
    let kit = fake.path("kit.age");
    let refused = start(kit.to_str().unwrap()).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert!(refused.to_string().starts_with("the storage is full\nthe recovery kit"), "{refused}");
    assert_eq!(fs::read_to_string(&kit).unwrap(), "armored kit\n");
}

#[tokio::test]
async fn a_role_that_faults_needs_a_person() {
    let fake = Fake::start();
    let mut faulted = status(Role::Idle, RolePhase::Faulted);
    faulted.faults =
        vec![Fault { code: "F-PORT".to_owned(), text: "port taken".to_owned(), since_unix_millis: 0 }];
    fake.state().statuses = vec![faulted];
    let pass = write_file(&fake, "pass", b"twelve characters\n");
    let line = ["role", "start-server", "--group", "Lab", "--kit", "-", "--passphrase-file", &pass];
    let failure = run(&fake, &line).await.unwrap_err();
    assert_eq!((failure.exit(), failure.to_string().as_str()), (Exit::NeedsPerson, "F-PORT: port taken"));
    assert_eq!(run(&fake, &["status"]).await.unwrap(), Exit::NeedsPerson);
}

#[tokio::test]
async fn a_refusal_is_passed_on_in_the_daemons_words() {
    let fake = Fake::start();
    let failure = run(&fake, &["role", "stop-server"]).await.unwrap_err();
    assert_eq!((failure.exit(), failure.to_string().as_str()), (Exit::Refused, "this device does not serve"));
}

#[tokio::test]
async fn joining_waits_until_the_device_is_current() {
    let fake = Fake::start();
    let with = |link: Link| StatusReply {
        client: Some(ClientStatus { link: link.into(), ..ClientStatus::default() }),
        ..status(Role::Client, RolePhase::Running)
    };
    fake.state().statuses = vec![with(Link::Connecting), with(Link::CatchingUp), with(Link::Current)];
    let line = ["join", "192.0.2.1:7401", "--code", "1234 5678", "--policy", "server-wins", "--wait-current"];
    assert_eq!(run(&fake, &line).await.unwrap(), Exit::Ok);
    let joined = fake.state().joined[0].clone();
    assert_eq!(joined.code, "12345678");
    assert_eq!(joined.policies.unwrap().others(), JoinPolicy::ServerWins);
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_told_apart() {
    let fake = Fake::start();
    fake.state().statuses = vec![status(Role::Client, RolePhase::Running)];
    let line = ["--timeout", "1", "join", "192.0.2.1:7401", "--code", "12345678", "--wait-current"];
    assert_eq!(run(&fake, &line).await.unwrap_err().exit(), Exit::TimedOut);
}

#[tokio::test]
async fn an_import_comes_back_byte_for_byte() {
    let fake = Fake::start();
    let file = write_file(&fake, "in.csv", SAMPLE);
    assert_eq!(run(&fake, &["import", &file, "--scope", "shared", "--dry-run"]).await.unwrap(), Exit::Ok);
    assert!(fake.state().items.is_empty());
    assert_eq!(run(&fake, &["import", &file, "--scope", "shared"]).await.unwrap(), Exit::Ok);
    assert_eq!(fake.state().writes, [50, 50, 50, 50, 1]);
    assert_eq!(run(&fake, &["import", &file, "--scope", "shared"]).await.unwrap(), Exit::Ok);
    assert_eq!(fake.state().writes.len(), 5, "what is there is not written again");
    let out = fake.path("out.csv");
    assert_eq!(run(&fake, &["export", out.to_str().unwrap(), "--scope", "shared"]).await.unwrap(), Exit::Ok);
    assert!(fs::read(&out).unwrap() == SAMPLE, "the exported file differs");
}

#[tokio::test]
async fn an_import_that_stops_on_the_way_says_so_and_can_be_repeated() {
    let fake = Fake::start();
    let file = write_file(&fake, "in.csv", SAMPLE);
    fake.state().writes_left = Some(2);
    let failure = run(&fake, &["import", &file, "--scope", "shared"]).await.unwrap_err();
    let text = failure.to_string();
    assert!(text.starts_with("the outbox is full\n100 of 200 entries are stored"), "{text}");
    assert_eq!(failure.exit(), Exit::Refused);
    fake.state().writes_left = None;
    assert_eq!(run(&fake, &["import", &file, "--scope", "shared"]).await.unwrap(), Exit::Ok);
    assert_eq!(fake.state().writes, [50, 50, 50, 50, 1]);
}

#[tokio::test]
async fn a_bad_file_stores_nothing() {
    let fake = Fake::start();
    let cut = &SAMPLE[..SAMPLE.len() - 40];
    let file = write_file(&fake, "cut.csv", cut);
    let failure = run(&fake, &["import", &file, "--scope", "shared"]).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::BadInput);
    assert!(failure.to_string().contains("line 206, column"), "{failure}");
    assert!(fake.state().items.is_empty());
}

#[tokio::test]
async fn items_are_put_patched_read_and_deleted_by_their_key() {
    let fake = Fake::start();
    let item =
        |verb, rest: &[&'static str]| [&["item", verb, "user/alice", "ui.language", "1"], rest].concat();
    run(&fake, &item("put", &["language=ja", "big:=true"])).await.unwrap();
    run(&fake, &item("patch", &["language=en", "--remove", "big"])).await.unwrap();
    let stored = fake.state().items.values().next().cloned().unwrap();
    assert_eq!(stored.fields, [crate::value::field("language=en").unwrap()]);
    assert_eq!(run(&fake, &item("get", &[])).await.unwrap(), Exit::Ok);
    run(&fake, &item("delete", &[])).await.unwrap();
    assert_eq!(run(&fake, &item("get", &[])).await.unwrap_err().to_string(), "no such item");
}

#[tokio::test]
async fn a_watch_stops_after_the_events_it_was_asked_for() {
    let fake = Fake::start();
    for id in ["1", "2", "3"] {
        run(&fake, &["item", "put", "shared", "k", id, "a=b"]).await.unwrap();
    }
    assert_eq!(run(&fake, &["watch", "--count", "2"]).await.unwrap(), Exit::Ok);
}
