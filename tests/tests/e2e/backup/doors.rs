//! A password that was entered for one server is shown to no other, by whatever way that other one came to stand
//! where it is set: not even an attempt to log in is made there.

use mfpsync_backup::smb::{Dialect, Encryption};
use mfpsync_proto::backup as wire;
use mfpsync_proto::backup::backup_client::BackupClient;
use mfpsync_proto::panel::Role;
use mfpsync_tests::{Relay, SHARE_PASSWORD, ShareServer, TestDevice, TestShare, running};
use tonic::transport::{Channel, Endpoint};

use super::{Office, ok, refused};

/// An archive behind a door, and another server that can come to stand behind that door or has one of its own. It
/// knows the very same account, so that whoever dials it leaves a trace.
struct Street {
    office: Office,
    door: Relay,
    rogue: TestShare,
    others_door: Relay,
}

impl Street {
    async fn open() -> Self {
        let (mut office, _) = Office::with_archive(0, 0..3).await;
        office.fleet.server.log.expect("came to nothing");
        let rogue = ShareServer::default().start().unwrap();
        let door = Relay::open(office.share.address()).await.unwrap();
        let others_door = Relay::open(rogue.address()).await.unwrap();
        let street = Self { office, door, rogue, others_door };
        street.set_right();
        ok(street.server(), &["drill", "--key", &street.office.key()]);
        street
    }

    fn server(&self) -> &TestDevice {
        &self.office.fleet.server
    }

    /// The share as it is meant, with its password, and the right server behind its door.
    fn set_right(&self) {
        self.door.lead_to(self.office.share.address());
        let port = self.door.address().port().to_string();
        let place = ["--host", "127.0.0.1", "--port", &port, "--share", "backup"];
        let account = ["--user", self.office.share.user(), "--domain", ""];
        let demands = ["--smb", "3.1.1", "--encryption", "preferred"];
        let password = ["--password-file", &self.office.password()];
        let set = ok(self.server(), &[&["set"][..], &place, &account, &demands, &password].concat());
        assert_eq!(set["has_password"], true, "{set}");
    }

    /// Whatever reaches for the share does not get as far as the other server.
    fn nothing_is_tried(&self, how: &str) {
        let (server, key) = (self.server(), self.office.key());
        assert_eq!(ok(server, &["status"])["has_password"], false, "{how}");
        for command in [
            &["now"][..],
            &["list"],
            &["drill"],
            &["drill", "--key", &key],
            &["preview", "--key", &key],
            &["restore", "--key", &key, "--yes"],
            &["bring-back", "--key", &key],
        ] {
            let refusal = refused(server, command);
            assert!(refusal.contains("no password is stored"), "{how}, {command:?}: {refusal}");
        }
        assert_eq!(self.rogue.log_ins().unwrap(), 0, "{how}");
    }

    /// Another share in every way in which it can be another one.
    fn others(&self) -> Vec<(&'static str, wire::Share)> {
        let share = wire::Share {
            host: "127.0.0.1".to_owned(),
            port: self.door.address().port().into(),
            share: "backup".to_owned(),
            user: self.office.share.user().to_owned(),
            minimum: wire::Dialect::Smb311.into(),
            encryption: wire::Encryption::Preferred.into(),
            ..wire::Share::default()
        };
        let of_rogue = self.rogue.address();
        let others_port = self.others_door.address().port();
        vec![
            (
                "host and port",
                wire::Share {
                    host: of_rogue.ip().to_string(),
                    port: of_rogue.port().into(),
                    ..share.clone()
                },
            ),
            ("port", wire::Share { port: others_port.into(), ..share.clone() }),
            ("host", wire::Share { host: "localhost".to_owned(), ..share.clone() }),
            ("share", wire::Share { share: "open".to_owned(), ..share.clone() }),
            ("user", wire::Share { user: "somebody".to_owned(), ..share.clone() }),
            ("domain", wire::Share { domain: "TESTSRV".to_owned(), ..share.clone() }),
            ("dialect", wire::Share { minimum: wire::Dialect::Smb300.into(), ..share.clone() }),
            ("encryption", wire::Share { encryption: wire::Encryption::Off.into(), ..share }),
        ]
    }

    /// As many log-ins at the right server as before: nobody tries without a password.
    fn log_ins(&self) -> usize {
        self.office.share.log_ins().unwrap()
    }
}

fn backup(device: &TestDevice) -> BackupClient<Channel> {
    let uri = format!("unix://{}", device.run_dir().join("panel.sock").display());
    BackupClient::new(Endpoint::from_shared(uri).unwrap().connect_lazy())
}

/// What the command is told for a share.
fn arguments(share: &wire::Share) -> Vec<String> {
    let smb = if share.minimum() == wire::Dialect::Smb300 { "3.0" } else { "3.1.1" };
    let encryption = if share.encryption() == wire::Encryption::Off { "off" } else { "preferred" };
    let port = share.port.to_string();
    let all = [
        ["--host", &share.host],
        ["--port", &port],
        ["--share", &share.share],
        ["--user", &share.user],
        ["--domain", &share.domain],
        ["--smb", smb],
        ["--encryption", encryption],
    ];
    all.concat().into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_sent_to_another_door() {
    let street = Street::open().await;
    let server = street.server();
    for (how, share) in street.others() {
        street.door.lead_to(street.rogue.address());
        let before = street.log_ins();
        let arguments = arguments(&share);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let set = ok(server, &[&["set"], &arguments[..]].concat());
        assert_eq!(set["has_password"], false, "{how}");
        street.nothing_is_tried(how);
        // Nor does it come back with what it was entered for.
        assert_eq!(street.log_ins(), before, "{how}");
        street.set_right();
    }
    // What is right still works, also with the other one behind another door.
    let before = street.log_ins();
    ok(server, &["now"]);
    ok(server, &["restore", "--key", &street.office.key(), "--yes"]);
    assert!(street.log_ins() > before);
    assert_eq!(ok(server, &["status"])["has_password"], true, "a restore leaves it as it is set");
    assert_eq!(street.rogue.log_ins().unwrap(), 0);
    // Whoever is asked to is heard there: what was typed, and nothing else.
    let port = street.others_door.address().port().to_string();
    let of_rogue = ["--host", "127.0.0.1", "--port", &port, "--share", "backup", "--user", "y"];
    let typed = street.office.file("typed");
    std::fs::write(&typed, "typed for this one").unwrap();
    let refusal = refused(server, &[&["test"][..], &of_rogue, &["--password-file", &typed]].concat());
    assert!(refusal.contains("is refused"), "{refusal}");
    assert_eq!(street.rogue.log_ins().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_sent_by_a_test_that_does_not_bring_one() {
    let street = Street::open().await;
    let server = street.server();
    street.door.lead_to(street.rogue.address());
    let before = street.log_ins();
    let port = street.others_door.address().port().to_string();
    let there = ["--host", "127.0.0.1", "--port", &port];
    for partial in [&there[..], &[&there[..], &["--share", "backup"]].concat(), &["--user", "y"], &[]] {
        refused(server, &[&["test"], partial].concat());
    }
    let empty = street.office.file("empty");
    std::fs::write(&empty, "").unwrap();
    for (how, share) in street.others() {
        let arguments = arguments(&share);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(server, &[&["test"], &arguments[..]].concat());
        refused(server, &[&["test"], &arguments[..], &["--password-file", &empty]].concat());
        let request = wire::TestRequest { share: Some(share), password: String::new() };
        let refusal = backup(server).test(request).await.unwrap_err();
        assert!(refusal.message().contains("check password"), "{how}: {refusal}");
    }
    let nothing = wire::TestRequest { share: None, password: String::new() };
    backup(server).test(nothing).await.unwrap_err();
    assert_eq!((street.rogue.log_ins().unwrap(), street.log_ins()), (0, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_sent_to_a_share_that_another_program_sets() {
    let street = Street::open().await;
    let server = street.server();
    for (how, share) in street.others() {
        street.door.lead_to(street.rogue.address());
        let before = street.log_ins();
        let request = wire::SetRequest { share: Some(share), ..wire::SetRequest::default() };
        let reply = backup(server).set(request).await.unwrap().into_inner();
        assert!(reply.password_forgotten && !reply.has_password, "{how}");
        // Setting the rest of it, or what was there before, brings nothing back.
        let keep = wire::Keep { newest: 3, ..wire::Keep::default() };
        let request = wire::SetRequest { keep: Some(keep), ..wire::SetRequest::default() };
        assert!(!backup(server).set(request).await.unwrap().into_inner().has_password, "{how}");
        street.nothing_is_tried(how);
        assert_eq!(street.log_ins(), before, "{how}");
        street.set_right();
    }
    street.door.lead_to(street.rogue.address());
    let before = street.log_ins();
    let wire::SettingsReply { share, recipients, .. } =
        backup(server).settings(wire::SettingsRequest {}).await.unwrap().into_inner();
    backup(server).forget(wire::ForgetRequest {}).await.unwrap();
    let request = wire::SetRequest { share, recipients, ..wire::SetRequest::default() };
    assert!(!backup(server).set(request).await.unwrap().into_inner().has_password);
    street.nothing_is_tried("forgotten and set again");
    assert_eq!(street.log_ins(), before);
}

/// A text as the entry has it.
fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A number as the entry has it.
fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A share as the entry has it.
fn entry(share: &wire::Share) -> Vec<u8> {
    let dialect = if share.minimum() == wire::Dialect::Smb300 { Dialect::Smb300 } else { Dialect::Smb311 };
    let off = share.encryption() == wire::Encryption::Off;
    let encryption = if off { Encryption::Off } else { Encryption::Preferred };
    [
        text(&share.host),
        number(share.port.into()),
        text(&share.share),
        text(&share.folder),
        text(&share.domain),
        text(&share.user),
        number(dialect.number().into()),
        vec![encryption.byte()],
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_sent_to_a_share_that_was_written_into_the_stored_entry() {
    let mut street = Street::open().await;
    let set = backup(street.server()).settings(wire::SettingsRequest {}).await.unwrap().into_inner();
    let right = entry(&set.share.unwrap());
    let path = street.server().data_dir().join("keys/backup");
    street.office.fleet.server.stop().await.unwrap();
    let stored = std::fs::read(&path).unwrap();
    let at = stored.windows(right.len()).position(|bytes| bytes == right).unwrap();
    assert!(stored.windows(SHARE_PASSWORD.len()).any(|bytes| bytes == SHARE_PASSWORD.as_bytes()));
    street.door.lead_to(street.rogue.address());
    let before = street.log_ins();
    for (how, share) in street.others() {
        let forged = [&stored[..at], &entry(&share), &stored[at + right.len()..]].concat();
        std::fs::write(&path, forged).unwrap();
        street.office.fleet.server.start().await.unwrap();
        running(street.server(), Role::ServerClient).await.unwrap();
        let status = ok(street.server(), &["status"]);
        assert_eq!((&status["share"]["host"], &status["has_password"]), (&share.host.into(), &false.into()));
        street.nothing_is_tried(how);
        street.office.fleet.server.stop().await.unwrap();
    }
    assert_eq!(street.log_ins(), before);
    // As it was it is right again.
    std::fs::write(&path, &stored).unwrap();
    street.door.lead_to(street.office.share.address());
    street.office.fleet.server.start().await.unwrap();
    running(street.server(), Role::ServerClient).await.unwrap();
    ok(street.server(), &["drill"]);
    assert!(street.log_ins() > before);
}
