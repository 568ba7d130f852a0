//! A share that is full, at every moment at which it can be.

use std::fs;

use anyhow::{Context, Result};
use mfpsync_backup::store::Kind;
use mfpsync_tests::volume::{Volume, may_mount};
use mfpsync_tests::{ShareServer, skip};

use crate::archive::{Bytes, id, sound, upload};
use crate::{connect, kind};

const MIB: usize = 1 << 20;

#[test]
fn a_full_share_keeps_what_it_has_and_nothing_of_what_did_not_fit() -> Result<()> {
    if !may_mount() {
        skip("may not mount a small disk");
        return Ok(());
    }
    let server = ShareServer::default().start()?;
    let _disk = Volume::mount(&server.folder("full"), 16)?;
    let store = server.store(server.target("full")?)?;
    let own = server.folder("full").join("group");
    let room = connect(&store)?.room()?;
    assert!((15 << 20..=16 << 20).contains(&room), "{room}");
    upload(&store, id(1), &mut Bytes::new(2 * MIB))?;
    let left = || -> Result<usize> { Ok(fs::read_dir(&own)?.count()) };

    // In the middle of the archive.
    assert_eq!(kind(upload(&store, id(2), &mut Bytes::new(20 * MIB))), Some(Kind::Full));
    assert_eq!((sound(&own)?, left()?), (vec![id(1)], 2));

    // Before anything is sent.
    let mut told = Bytes { told: true, ..Bytes::new(20 * MIB) };
    assert_eq!(kind(upload(&store, id(3), &mut told)), Some(Kind::Full));
    assert_eq!((sound(&own)?, left()?), (vec![id(1)], 2));

    // After the archive, for its manifest.
    let free = rustix::fs::statvfs(&own)?;
    let ballast = usize::try_from(free.f_bavail * free.f_frsize)?.checked_sub(MIB).context("no room")?;
    fs::write(server.folder("full").join("ballast"), vec![1; ballast])?;
    assert_eq!(kind(upload(&store, id(4), &mut Bytes::new(MIB))), Some(Kind::Full));
    assert_eq!(sound(&own)?, [id(1)]);
    // The archive that never got one is the next sweep's.
    assert!(own.join(id(4).data().as_str()).exists());
    assert_eq!(left()?, 3);

    fs::remove_file(server.folder("full").join("ballast"))?;
    upload(&store, id(5), &mut Bytes::new(MIB))?;
    assert_eq!(sound(&own)?, [id(1), id(5)]);
    Ok(())
}

#[test]
fn an_archive_whose_last_byte_has_no_room_is_none() -> Result<()> {
    if !may_mount() {
        skip("may not mount a small disk");
        return Ok(());
    }
    let server = ShareServer::default().start()?;
    let disk = Volume::mount(&server.folder("full"), 16)?;
    let store = server.store(server.target("full")?)?;
    let own = server.folder("full").join("group");
    upload(&store, id(1), &mut Bytes::new(MIB))?;
    disk.fill_but(2 << 20)?;
    let free = rustix::fs::statvfs(&own)?;
    let room = usize::try_from(free.f_bavail * free.f_frsize)?;
    // One byte more than there is room for; and the last one for which there is leaves none for a manifest.
    for (luck, size) in [(2, room + 1), (3, room)] {
        assert_eq!(kind(upload(&store, id(luck), &mut Bytes::new(size))), Some(Kind::Full), "{size}");
        assert_eq!(sound(&own)?, [id(1)]);
        assert!(!own.join(id(luck).part(0).as_str()).exists());
        assert_eq!(own.join(id(luck).data().as_str()).exists(), size == room);
    }
    disk.empty()?;
    upload(&store, id(4), &mut Bytes::new(MIB))?;
    assert_eq!(sound(&own)?, [id(1), id(4)]);
    Ok(())
}

#[test]
fn a_server_that_notices_at_the_close_that_it_had_no_room_gets_no_archive() -> Result<()> {
    let server = ShareServer::default().keeping(MIB as u64).start()?;
    let store = server.store(server.target("backup")?)?;
    let own = server.folder("backup").join("group");
    upload(&store, id(1), &mut Bytes::new(MIB - 1))?;
    for (luck, size) in [(2, MIB + 1), (3, 3 * MIB)] {
        // A library may keep the server's word to itself; what is read back does not.
        let refused = kind(upload(&store, id(luck), &mut Bytes::new(size)));
        assert!(matches!(refused, Some(Kind::Altered | Kind::Full)), "{refused:?}");
        assert_eq!((sound(&own)?, fs::read_dir(&own)?.count()), (vec![id(1)], 2));
    }
    Ok(())
}
