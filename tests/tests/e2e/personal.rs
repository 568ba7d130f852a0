//! Personal data and secrets leave a device by the calls that ask for them, and by no other way: values that
//! cannot be mistaken are put through everything a device does, and looked for wherever it speaks of itself.

use std::fs;
use std::process::Command;

use mfpsync_proto::local::{Edit, Field, ItemKey};
use mfpsync_proto::monitor::monitor_client::MonitorClient;
use mfpsync_proto::monitor::{CommunicationsRequest, MetricsRequest};
use mfpsync_proto::panel::{JoinPolicy, LeaveRequest, PrepareGroupRequest};
use mfpsync_tests::item::{bytes, delete, key, patch, put, set, text};
use mfpsync_tests::{
    Fleet, PASSPHRASE, PATIENCE, TestDevice, command_path, current, join, open_pairing, start_server,
};
use tonic::transport::Endpoint;

/// Who is in the data, and who works at the panel.
const USER: &str = "zyxxa-user";
const ACTOR: &str = "zyxxa-actor";
/// Each value, id and secret holds this, so that a part of one is found as well.
const MARK: &str = "zyxxa";
/// A number has no letters.
const FAX: &str = "+81-3-5550-904173";
const CARDS: &str = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Zyxxa-Name;Zyxxa;;;\r\nFN:Zyxxa Zyxxa-Name\r\n\
    EMAIL;TYPE=INTERNET:zyxxa.mail@example.com\r\nTEL;TYPE=FAX:+81-3-5550-904173\r\nEND:VCARD\r\n";

fn entry(id: &str) -> ItemKey {
    key(&format!("user/{USER}"), "address.personal", id)
}

fn values(of: &str) -> Vec<Field> {
    vec![
        text("name", &format!("Zyxxa Name {of}")),
        text("mail", &format!("zyxxa.{of}@example.com")),
        text("fax", FAX),
        text("folder", &format!("\\\\zyxxa-host\\scans\\{of}")),
        text("folder_password", &format!("zyxxa-password-{of}")),
        bytes("picture", b"zyxxa-picture"),
        set("groups", &["zyxxa-team"]),
    ]
}

async fn write(device: &TestDevice, edits: Vec<Edit>) -> Result<(), tonic::Status> {
    let request = mfpsync_proto::local::WriteRequest { edits, actor: ACTOR.to_owned() };
    device.local().unwrap().write(request).await.map(drop)
}

/// Runs the operator's command; whether it likes what it is asked does not matter here.
fn mfpsync(device: &TestDevice, arguments: &[&str]) {
    let mut command = Command::new(command_path().unwrap());
    let run = command.arg("--run").arg(device.run_dir()).args(arguments).output().unwrap();
    assert!(run.status.code().is_some_and(|code| code != 2), "{arguments:?}: {run:?}");
}

/// All that a device says about itself to those who may not see its data.
async fn says(device: &TestDevice) -> String {
    let mut said = vec![device.log.text()];
    for command in ["help", "state", "positions", "reigns", "stats", "faults", "hashes", "explain nonsense"] {
        said.push(format!("{:?}", device.debug(command).await.unwrap()));
    }
    for item in [entry("zyxxa-one"), entry("zyxxa-absent"), key("shared", "address.shared", "zyxxa-shared")] {
        let command = format!("explain {} {} {}", item.scope, item.kind, item.id);
        said.push(format!("{:?}", device.debug(&command).await.unwrap()));
    }
    let uri = format!("unix://{}", device.run_dir().join("panel.sock").display());
    let mut monitor = MonitorClient::new(Endpoint::from_shared(uri).unwrap().connect_lazy());
    let all = CommunicationsRequest { limit: 1_000, ..Default::default() };
    let entries = monitor.communications(all).await.unwrap().into_inner().entries;
    assert!(!entries.is_empty());
    said.push(format!("{entries:?}"));
    said.push(monitor.metrics(MetricsRequest {}).await.unwrap().into_inner().text);
    said.push(fs::read_to_string(device.data_dir().join("communication.log")).unwrap_or_default());
    said.push(format!("{:?}", device.status().await.unwrap()));
    said.join("\n")
}

fn keeps_quiet(device: &TestDevice, said: &str, secrets: &[String]) {
    let lower = said.to_lowercase();
    for secret in [MARK, FAX, "5550-904173"].into_iter().chain(secrets.iter().map(String::as_str)) {
        let found = lower.find(&secret.to_lowercase());
        let around = found.map(|at| lower.get(at.saturating_sub(300)..).unwrap_or(&lower));
        let around = around.map(|text| text.chars().take(500).collect::<String>());
        assert!(around.is_none(), "{} gives {secret:?} away: {around:?}", device.name);
    }
}

fn traced(name: &str) -> TestDevice {
    let mut device = TestDevice::new(name).unwrap();
    device.setup.log_level = Some("trace".to_owned());
    // What goes wrong here goes wrong on purpose, and is read to the last line.
    for surprise in [" WARN ", " ERROR "] {
        device.log.expect(surprise);
    }
    device
}

/// What the server's operator does with the data.
fn operate(server: &TestDevice) {
    let cards = server.home().join("cards.vcf");
    fs::write(&cards, CARDS).unwrap();
    let (cards, exported) = (cards.to_str().unwrap(), server.home().join("zyxxa.json"));
    mfpsync(server, &["import", cards, "--scope", "shared"]);
    fs::write(cards, "BEGIN:VCARD\r\nFN:Zyxxa broken\r\n").unwrap();
    mfpsync(server, &["import", cards, "--scope", "shared"]);
    for line in [
        "status",
        "history --since 1h",
        "users list",
        "sharing set address.personal device-specific --yes",
        "sharing set address.personal shared --from zyxxa-nobody --yes",
        "sharing set address.personal shared --before --yes",
        "item list shared",
        "set-aside",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(command_path().unwrap());
        command.arg("--run").arg(server.run_dir()).args(&arguments).output().unwrap();
    }
    mfpsync(server, &["users", "export", USER, exported.to_str().unwrap()]);
}

#[tokio::test]
async fn nothing_personal_and_no_secret_is_where_a_device_speaks_of_itself() {
    let mut server = traced("server");
    server.start().await.unwrap();
    // A group that is prepared and never founded, with a passphrase that is looked for.
    let prepared = PrepareGroupRequest {
        group_name: "Office".to_owned(),
        kit_passphrase: "zyxxa passphrase".to_owned(),
    };
    let kit = server.panel().unwrap().prepare_group(prepared).await.unwrap().into_inner().recovery_kit;
    let own_kit = start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    for name in ["client-1", "client-2"] {
        let mut client = traced(name);
        client.start().await.unwrap();
        // It brings data of its own, some of it the same.
        write(&client, vec![put(entry("zyxxa-brought"), values(name))]).await.unwrap();
        fleet.add(client, JoinPolicy::Merge).await.unwrap();
    }
    let code = open_pairing(&fleet.server).await.unwrap().code;
    let mut stranger = traced("stranger");
    stranger.start().await.unwrap();
    let wrong: String = code.chars().rev().map(|digit| if digit == '9' { '0' } else { '9' }).collect();
    let address = fleet.server.address().to_string();
    join(&stranger, &address, &wrong, JoinPolicy::Merge).await.unwrap_err();

    operate(&fleet.server);
    let shared = key("shared", "address.shared", "zyxxa-shared");
    write(&fleet.clients[0], vec![put(entry("zyxxa-one"), values("one")), put(shared, values("shared"))])
        .await
        .unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.clients[0].login(USER, Some(0)).await.unwrap();
    // A conflict: one of the two is set aside.
    fleet.cut(1).await.unwrap();
    let fight =
        |of: &str| vec![patch(entry("zyxxa-one"), vec![text("mail", &format!("zyxxa.{of}@example.com"))])];
    write(&fleet.clients[0], fight("first")).await.unwrap();
    write(&fleet.clients[1], fight("second")).await.unwrap();
    fleet.mend(1).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    // What is refused is refused to its caller alone.
    let refused = [
        put(key("user/zyxxa\u{7}", "address.personal", "x"), values("x")),
        put(key("zyxxa-scope", "address.personal", "x"), values("x")),
        put(entry("zyxxa-large"), vec![text("name", &MARK.repeat(20_000))]),
        put(key(&format!("user/{USER}"), "keychain", "zyxxa-key"), values("key")),
        put(entry("zyxxa-field"), vec![text("zyxxa field\u{7}", "x")]),
    ];
    for edit in refused {
        write(&fleet.clients[0], vec![edit]).await.unwrap_err();
    }
    write(&fleet.clients[1], vec![delete(entry("zyxxa-one"))]).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.clients[1].kill().unwrap();
    fleet.clients[1].start().await.unwrap();
    current(&fleet.clients[1]).await.unwrap();
    mfpsync(&fleet.server, &["users", "erase", USER, "--yes"]);
    write(&fleet.clients[0], vec![put(entry("zyxxa-again"), values("again"))]).await.ok();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    fleet.clients[0].panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap();

    let secrets: Vec<String> = [kit, own_kit]
        .iter()
        .map(|kit| kit.lines().nth(1).expect("an armored kit").to_owned())
        .chain([PASSPHRASE.to_owned()])
        .collect();
    for device in fleet.devices().chain([&stranger]) {
        let said = says(device).await;
        keeps_quiet(device, &said, &secrets);
        // Eight digits may be part of a longer number.
        let mut words = said.split(|letter: char| !letter.is_alphanumeric());
        assert!(!words.any(|word| word == code), "{} gives the pairing code away", device.name);
    }
}
