//! What is demanded of a server, and that nothing is sent to one that does not meet it.

use anyhow::{Context, Result};
use mfpsync_backup::smb::{Dialect, Encryption, Library, Target};
use mfpsync_backup::store::{Breach, Kind, Protection};
use mfpsync_tests::{Relay, ShareServer, smb_library};

use crate::{connect, refused};

#[test]
fn a_connection_is_signed_and_encrypted_as_the_server_sees_it() -> Result<()> {
    let cases = match smb_library()? {
        Library::Libsmbclient => &[
            ("default", Encryption::Required, Ok(true)),
            ("default", Encryption::Preferred, Ok(true)),
            ("default", Encryption::Off, Ok(false)),
            ("off", Encryption::Preferred, Ok(false)),
            ("required", Encryption::Off, Ok(true)),
        ][..],
        Library::Native => &[
            ("default", Encryption::Preferred, Ok(false)),
            ("off", Encryption::Off, Ok(false)),
            ("default", Encryption::Required, Err(Breach::Encryption)),
            ("required", Encryption::Preferred, Err(Breach::EncryptionOff)),
        ],
    };
    for &(server, encryption, expected) in cases {
        let server = ShareServer::default().with(&format!("server smb encrypt = {server}")).start()?;
        let store = server.store(Target { encryption, ..server.target("backup")? })?;
        let encrypted = match expected {
            Ok(encrypted) => encrypted,
            Err(breach) => {
                assert_eq!(refused(&store), Some(Kind::Policy(breach)));
                assert!(!server.folder("backup").join("group").exists());
                continue;
            }
        };
        let share = connect(&store)?;
        let sessions = server.sessions()?;
        let session = sessions.first().context("no session")?;
        assert_eq!(sessions.len(), 1);
        assert_eq!(session.dialect, "SMB3_11");
        assert_ne!(session.signing, "-");
        assert_eq!(session.cipher != "-", encrypted, "{session:?}");
        let expected = if encrypted { Protection::Encrypted(0x0311) } else { Protection::Signed(0x0311) };
        assert_eq!(share.protection(), expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_encrypt_gets_nothing_when_that_is_required() -> Result<()> {
    let server = ShareServer::default().with("server smb encrypt = off").start()?;
    // SMB writes names in UTF-16.
    let canary: Vec<u8> = "group".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (encryption, refusal) in
        [(Encryption::Required, Some(Kind::Policy(Breach::Encryption))), (Encryption::Off, None)]
    {
        let relay = Relay::open(server.address()).await?;
        let (host, port) = (relay.address().ip().to_string(), relay.address().port());
        let store = server.store(Target { host, port, encryption, ..server.target("backup")? })?;
        assert_eq!(tokio::task::block_in_place(|| refused(&store)), refusal);
        let seen = relay.there().windows(canary.len()).any(|bytes| bytes == canary);
        assert_eq!(seen, refusal.is_none(), "{encryption:?}");
        assert_eq!(server.folder("backup").join("group").exists(), refusal.is_none());
    }
    Ok(())
}

#[test]
fn a_server_below_the_oldest_dialect_is_refused() -> Result<()> {
    let old = ["server min protocol = SMB2_02", "server max protocol = SMB2_10"];
    let server = old.iter().fold(ShareServer::default(), |server, setting| server.with(setting)).start()?;
    assert_eq!(refused(&server.store(server.target("backup")?)?), Some(Kind::Policy(Breach::Dialect)));
    let server = ShareServer::default().with("server max protocol = SMB3_00").start()?;
    connect(&server.store(server.target("backup")?)?)?;
    let newest = Target { minimum: Dialect::Smb311, ..server.target("backup")? };
    assert_eq!(refused(&server.store(newest)?), Some(Kind::Policy(Breach::Dialect)));
    Ok(())
}

#[test]
fn a_guests_session_is_not_taken_for_a_users() -> Result<()> {
    let guests = ["map to guest = bad user", "restrict anonymous = 0", "server signing = default"];
    let server =
        guests.iter().fold(ShareServer::default(), |server, setting| server.with(setting)).start()?;
    for user in ["nobody-of-that-name", "guest"] {
        let unknown = Target { user: user.to_owned(), ..server.target("open")? };
        assert_eq!(refused(&server.store(unknown)?), Some(Kind::Guest));
    }
    assert!(!server.folder("backup").join("group").exists());
    let nobody = Target { user: String::new(), ..server.target("open")? };
    assert!(server.store(nobody).is_err());
    Ok(())
}

#[test]
fn a_name_that_stands_for_this_machine_is_not_dialled() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(Target { this_machine: false, ..server.target("backup")? })?;
    assert_eq!(refused(&store), Some(Kind::InvalidName));
    assert_eq!(server.log_ins()?, 0);
    Ok(())
}
