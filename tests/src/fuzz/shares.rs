//! Shares: what a server says on the wire, what names it gives files, and what helper and daemon say to each other.

use mfpsync_backup::layout::{ArchiveId, Piece};
use mfpsync_backup::smb::protocol::{Answer, Request};
use mfpsync_backup::smb::wire::Watch;
use mfpsync_backup::smb::{Dialect, Encryption, Secret, Target};
use mfpsync_backup::store::{Entry, Kind, Name, Protection};

/// A message from a server that was taken is of a dialect that was asked for, whatever it says.
pub(super) fn smb(bytes: &[u8]) -> bool {
    let mut watch = Watch::new(Dialect::Smb302, Encryption::Required);
    let heard = watch.to_client(bytes);
    assert!(watch.dialect().is_none_or(|dialect| heard.is_ok() && dialect >= 0x0302));
    let _either = watch.to_server(bytes);
    heard.is_ok()
}

pub(super) fn smb_samples() -> Vec<Vec<u8>> {
    let mut clear = b"\xfeSMB\x40\x00\x01\x00".to_vec();
    clear.resize(72, 0);
    clear[68..70].copy_from_slice(&[0x11, 0x03]);
    let mut session = clear.clone();
    session[12] = 1;
    vec![clear, session, b"\xfdSMB".to_vec()]
}

/// A name of ours has one text, and a name that was taken is one that may be given.
pub(super) fn name(bytes: &[u8]) -> bool {
    let Some(name) = std::str::from_utf8(bytes).ok().and_then(|text| Name::parse(text).ok()) else {
        return false;
    };
    assert!(!name.as_str().contains(['/', '\\', '\0', '%']) && name.as_str() != "..");
    match Piece::of(&name) {
        None => {}
        Some(Piece::Data(id)) => assert_eq!(id.data(), name),
        Some(Piece::Manifest(id)) => assert_eq!(id.manifest(), name),
        Some(Piece::Part(id)) => assert!(name.as_str().starts_with(&id.to_string())),
    }
    true
}

pub(super) fn name_samples() -> Vec<Vec<u8>> {
    let id = ArchiveId::new(1_796_000_000, 0xfeed);
    [id.data(), id.manifest(), id.part(3)].map(|name| name.to_string().into_bytes()).into()
}

/// A frame between helper and daemon says one thing.
pub(super) fn helper(bytes: &[u8]) -> bool {
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(request));
    }
    let answer = Answer::decode(bytes);
    if let Ok(answer) = &answer {
        assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(answer));
    }
    request.is_ok() || answer.is_ok()
}

pub(super) fn helper_samples() -> Vec<Vec<u8>> {
    let name = Name::parse("a.part").unwrap();
    let target = Target {
        host: "192.0.2.1".to_owned(),
        port: 445,
        this_machine: false,
        share: "backup".to_owned(),
        folder: "office".to_owned(),
        own_folder: name.clone(),
        domain: String::new(),
        user: "printer".to_owned(),
        password: Secret::new("password".to_owned()),
        minimum: Dialect::Smb300,
        encryption: Encryption::Preferred,
        patience: std::time::Duration::from_secs(5),
    };
    let requests = [
        Request::Begin(Box::new(target)),
        Request::Resume(name.clone(), 9),
        Request::Write(b"bytes"),
        Request::Rename(name.clone(), name.clone()),
    ];
    let answers = [
        Answer::Begun(Protection::Encrypted(0x0311)),
        Answer::Entries(vec![Entry { name, size: 9 }]),
        Answer::Size(Some(9)),
        Answer::Failed { kind: Kind::Full, number: Some(28) },
    ];
    requests.iter().map(Request::encode).chain(answers.iter().map(Answer::encode)).collect()
}
