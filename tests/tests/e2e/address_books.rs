//! Address books in and out with the real command and the real daemon: every format, alone and while syncing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::ensure;
use mfpsync_proto::local::ItemKey;
use mfpsync_tests::item::{key, put, set, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, command_path, eventually};
use serde_json::Value as Json;

const FORMATS: [(&str, &str, &str); 6] = [
    ("csv-2", "a.csv", "csv"),
    ("csv-3", "b.csv", "csv"),
    ("abk", "c.abk", "abk"),
    ("ldif", "d.ldif", "ldif"),
    ("vcard", "e.vcf", "vcard"),
    ("vcard-3", "f.vcf", "vcard"),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn command(device: &TestDevice, arguments: &[&str]) -> Command {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(arguments).args(["--scope", "shared"]);
    command
}

fn run(device: &TestDevice, verb: &str, file: &Path, more: &[&str]) -> Output {
    let arguments = [&[verb, file.to_str().unwrap(), "--json"], more].concat();
    command(device, &arguments).output().unwrap()
}

fn answer(output: &Output) -> Json {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn import(device: &TestDevice, file: &Path, more: &[&str]) -> Json {
    answer(&run(device, "import", file, more))
}

fn export(device: &TestDevice, file: &Path, more: &[&str]) -> Json {
    answer(&run(device, "export", file, more))
}

/// What an import would do or did: added, changed, identical.
fn figures(answer: &Json) -> [u64; 3] {
    ["added", "changed", "identical"].map(|name| answer[name].as_u64().unwrap())
}

fn entry(id: &str) -> ItemKey {
    key("shared", "address.shared", id)
}

#[tokio::test]
async fn what_a_dry_run_shows_is_what_an_import_does_and_again_it_stores_nothing() {
    let fleet = Fleet::start(1).await.unwrap();
    let client = &fleet.clients[0];
    for name in ["address-list.csv", "one-touch.csv", "address-list.abk", "directory.ldif", "contacts.vcf"] {
        let file = sample(name);
        let before = client.contents(&["shared"]).await.unwrap();
        let shown = import(client, &file, &["--dry-run"]);
        assert!(shown["stored"].is_null());
        assert_eq!(
            client.contents(&["shared"]).await.unwrap(),
            before,
            "a dry run of {name} stored something"
        );
        let done = import(client, &file, &[]);
        assert_eq!(figures(&done), figures(&shown), "{name}");
        let [added, changed, _] = figures(&done);
        assert_eq!(done["stored"].as_u64(), Some(added + changed), "{name}");
        let after = client.contents(&["shared"]).await.unwrap();
        let entries = |contents: &mfpsync_tests::Contents| {
            contents.iter().filter(|([_, kind, ..], _)| kind == "address.shared").count() as u64
        };
        assert_eq!(entries(&after), entries(&before) + added, "{name}");
        let [added, changed, _] = figures(&import(client, &file, &[]));
        assert_eq!((added, changed), (0, 0), "{name} again");
    }
    let everywhere = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert!(everywhere.len() > 200);
}

/// Entries as firmware makes them, with ids that no file but LDIF and vCard holds.
async fn made_here(device: &TestDevice) {
    let person = |id: &str, class: &str, name: &str, value: &str| {
        put(
            entry(id),
            vec![text("class", class), text("name", name), text(value, &format!("{id}@example.com"))],
        )
    };
    let fax = |id: &str, number: &str| {
        put(entry(id), vec![text("class", "fax"), text("name", "Desk"), text("number", number)])
    };
    let team = |id: &str, name: &str, members: &[&str]| {
        put(entry(id), vec![text("class", "group"), text("name", name), set("members", members)])
    };
    device
        .write(vec![
            person("p1", "email", "山田 太郎", "mail"),
            person("p2", "email", "Ann, \"B\"; C\\D", "mail"),
            fax("f1", "03-1234-5678"),
            fax("f2", "03 (1234) 5679"),
            team("g1", "Team", &["p1", "f1"]),
            team("g2", "Team", &["p1", "f2"]),
            team("g3", "All", &["g1", "g2", "p2"]),
        ])
        .await
        .unwrap();
}

#[tokio::test]
async fn an_export_read_back_adds_nothing_in_any_format_here_and_at_another_device() {
    let fleet = Fleet::start(1).await.unwrap();
    let client = &fleet.clients[0];
    made_here(client).await;
    let directory = tempfile::tempdir().unwrap();
    for source in [
        None,
        Some("address-list.csv"),
        Some("directory.ldif"),
        Some("contacts.vcf"),
        Some("address-list.abk"),
    ] {
        if let Some(source) = source {
            import(client, &sample(source), &[]);
        }
        let all = fleet.converged(&["shared"], PATIENCE).await.unwrap();
        for (format, name, read_as) in FORMATS {
            let file = directory.path().join(name);
            let exported = export(client, &file, &["--format", format]);
            for device in fleet.devices() {
                let shown = import(device, &file, &["--dry-run"]);
                assert_eq!(shown["format"], read_as);
                assert_eq!(figures(&shown)[0], 0, "{format} of {source:?} at {}: {shown}", device.name);
                assert_eq!(
                    figures(&shown).iter().sum::<u64>(),
                    exported["entries"].as_u64().unwrap(),
                    "{format} of {source:?}: {shown}"
                );
            }
        }
        assert_eq!(client.contents(&["shared"]).await.unwrap(), all);
    }
}

#[tokio::test]
async fn files_come_out_as_they_went_in_at_any_device() {
    let directory = tempfile::tempdir().unwrap();
    for (name, file) in
        [("address-list.csv", "out.csv"), ("address-list.abk", "out.abk"), ("contacts.vcf", "out.vcf")]
    {
        let fleet = Fleet::start(1).await.unwrap();
        import(&fleet.server, &sample(name), &[]);
        fleet.converged(&["shared"], PATIENCE).await.unwrap();
        let file = directory.path().join(file);
        export(&fleet.clients[0], &file, &[]);
        let (out, original) = (std::fs::read(&file).unwrap(), std::fs::read(sample(name)).unwrap());
        if name.ends_with("vcf") {
            // The order of cards is that of ids: the format has no numbers.
            let cards = |bytes: &[u8]| {
                let mut cards: Vec<String> =
                    String::from_utf8_lossy(bytes).split("BEGIN").map(str::to_owned).collect();
                cards.sort();
                cards
            };
            assert_eq!(cards(&out), cards(&original));
        } else {
            assert!(out == original, "{name} differs");
        }
    }
}

#[tokio::test]
async fn passwords_of_another_machine_stay_out_with_a_notice() {
    let fleet = Fleet::start(1).await.unwrap();
    let secret = "0123456789abcdef";
    let crypto = "# Crypto Version: 2\n# Crypto Attribute: pwd\n";
    let directory = tempfile::tempdir().unwrap();
    let csv = format!(
        "# Canon AddressBook CSV version: 0x0002\n# CharSet: UTF-8\n{crypto}\nobjectclass,cn,url,protocol,pwd\nremotefilesystem,NAS,\\\\nas\\scan,smb,{secret}\n"
    );
    let abk = format!(
        "# Canon AddressBook version: 1\n# CharSet: UTF-8\n{crypto}\ncn: NAS\nurl: \\\\nas\\scan\nprotocol: smb\npwd: {secret}\nobjectclass: remotefilesystem\n"
    );
    let ldif =
        format!("dn: cn=Ann\nobjectClass: person\ncn: Ann\nmail: a@example.com\nuserPassword: {secret}\n");
    for (name, content) in [("a.csv", csv), ("a.abk", abk), ("a.ldif", ldif)] {
        let file = directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        let done = import(&fleet.clients[0], &file, &[]);
        assert!(done["notices"].to_string().contains("password left out"), "{name}: {done}");
        let out = directory.path().join("out").with_extension(file.extension().unwrap());
        export(&fleet.clients[0], &out, &[]);
        assert!(!String::from_utf8_lossy(&std::fs::read(out).unwrap()).contains(secret), "{name}");
    }
    let all = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert!(all.iter().any(|(_, fields)| fields.contains_key("host")), "the entry itself is there");
    assert!(!format!("{all:?}").contains(secret));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_or_written_is_told_and_changes_nothing() {
    let fleet = Fleet::start(1).await.unwrap();
    let client = &fleet.clients[0];
    let directory = tempfile::tempdir().unwrap();
    for (name, content, fault) in [
        (
            "a.csv",
            "# Canon AddressBook CSV version: 0x0002\n# CharSet: UTF-8\n\nobjectclass,\"a\nb\"\nemail,x\n",
            "line 4, column #2: name of the column",
        ),
        ("a.vcf", "BEGIN:VCARD\nVERSION:4.0\nFN:x\nEMAIL:a@example.com\n", "line 1: card has no END:VCARD"),
        ("a.ldif", "dn: cn=x\nmail:: ?\n", "line 2, column mail: value is not base64"),
    ] {
        let file = directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        let output = run(client, "import", &file, &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains(fault) && told.contains("nothing was stored"), "{told}");
    }
    assert!(client.contents(&["shared"]).await.unwrap().is_empty());
    client
        .write(vec![put(
            entry("n"),
            vec![text("class", "folder"), text("host", "nas"), text("name", "\u{5c71}")],
        )])
        .await
        .unwrap();
    for (file, more, fault) in [
        ("x.vcf", &[][..], "0 of 1 entry can be written as vcard"),
        ("x.ldif", &[], "0 of 1 entry can be written as ldif"),
        ("x.abk", &["--charset", "wcp1252"], "U+5C71"),
    ] {
        let file = directory.path().join(file);
        let output = run(client, "export", &file, more);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(fault), "{told}");
        assert!(!file.exists(), "{} was written", file.display());
    }
}

#[tokio::test]
async fn an_import_goes_on_while_everybody_edits_and_a_cable_breaks() {
    let fleet = Fleet::start(2).await.unwrap();
    let (importer, editor) = (&fleet.clients[0], &fleet.clients[1]);
    let mut importing =
        command(importer, &["import", sample("address-list.csv").to_str().unwrap(), "--json"])
            .spawn()
            .unwrap();
    let mut written = 0;
    let ended = loop {
        for device in [editor, &fleet.server, importer] {
            let id = format!("{}-{written}", device.name);
            device
                .write(vec![put(key("shared", "button.shared", &id), vec![text("title", &id)])])
                .await
                .unwrap();
        }
        written += 1;
        if written == 2 {
            fleet.cut(0).await.unwrap();
        }
        if let Some(ended) = importing.try_wait().unwrap().filter(|_| written > 3) {
            break ended;
        }
    };
    assert!(ended.success());
    assert_eq!(figures(&import(importer, &sample("address-list.csv"), &["--dry-run"])), [0, 0, 200]);
    fleet.mend(0).await.unwrap();
    let waiting = eventually(PATIENCE, "nothing to wait", async || {
        let waiting = importer.client_status().await?.waiting;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    });
    waiting.await.unwrap();
    let all = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let of = |wanted: &str| all.iter().filter(|([_, kind, ..], _)| kind == wanted).count();
    assert_eq!((of("address.shared"), of("button.shared")), (200, 3 * written));
    assert_eq!(figures(&import(editor, &sample("address-list.csv"), &["--dry-run"])), [0, 0, 200]);
}
