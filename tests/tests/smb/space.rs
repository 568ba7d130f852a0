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
