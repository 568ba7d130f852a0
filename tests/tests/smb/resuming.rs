//! What an upload finds when it goes on in another life: its part, another's, none; or all of it in place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::store::{Cancel, Kind, Result as Stored};
use mfpsync_backup::upload::{Mark, Progress, Upload, Whole};
use mfpsync_tests::{ShareServer, TestShare};

use crate::archive::{Bytes, PATIENCE, id, sound, upload, upload_with};
use crate::kind;

const SIZE: usize = 3_500_000;

/// Begins to upload an archive and is told to end in the middle; how far it was then, and where its part is.
fn begun(server: &TestShare, id: ArchiveId) -> Result<(Mark, PathBuf)> {
    let (cancel, mut left) = (Cancel::new()?, None);
    let store = server.store(server.target("backup")?)?;
    let ended = upload_with(&store, id, &mut Bytes::new(SIZE), &cancel, &mut |progress| {
        if let Progress::Sending(mark) = progress {
            left = Some(mark);
            cancel.cancel();
        }
    });
    ensure!(kind(ended) == Some(Kind::Cancelled));
    let mark = left.context("nothing was sent")?;
    let part = server.folder("backup").join("group").join(id.part(mark.turn).as_str());
    ensure!(mark.taken > 0 && fs::metadata(&part)?.len() >= mark.taken);
    Ok((mark, part))
}

fn goes_on(server: &TestShare, id: ArchiveId, archive: &mut Bytes, mark: Mark) -> Result<Stored<Whole>> {
    let (store, cancel) = (server.store(server.target("backup")?)?, Cancel::new()?);
    let (patience, resume) = (PATIENCE, Some(mark));
    let job = Upload { store: &store, cancel: &cancel, id, patience, resume, observe: &mut |_| () };
    Ok(job.run(archive))
}

fn overwrite(part: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(part)?;
    change(&mut bytes);
    Ok(fs::write(part, bytes)?)
}

#[test]
fn a_part_that_is_another_one_shorter_or_gone_makes_no_bad_archive() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    type Meddle = fn(&Path) -> Result<()>;
    let meddle: [(Meddle, _); 5] = [
        (|part| overwrite(part, |bytes| bytes.fill(7)), Some(Kind::Altered)),
        (|part| overwrite(part, |bytes| bytes.extend_from_slice(&[0; 2 * SIZE])), Some(Kind::Altered)),
        (|part| overwrite(part, |bytes| bytes.truncate(bytes.len() / 2)), None),
        (|part| overwrite(part, Vec::clear), None),
        (|part| Ok(fs::remove_file(part)?), None),
    ];
    let mut there = Vec::new();
    for (number, (meddle, refusal)) in meddle.into_iter().enumerate() {
        let id = id(number as u64);
        let (mark, part) = begun(&server, id)?;
        meddle(&part)?;
        assert_eq!(kind(goes_on(&server, id, &mut Bytes::new(SIZE), mark)?), refusal, "{number}");
        if refusal.is_none() {
            there.push(id);
        } else {
            assert!(!part.exists(), "{number}: what is of no use to anybody stays");
        }
        assert_eq!(sound(&own)?, there, "{number}");
    }
    Ok(())
}

#[test]
fn an_archive_that_is_another_one_than_was_begun_is_not_finished() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let mut other = Bytes::new(SIZE);
    other.bytes[0] ^= 1;
    for (number, mut archive, refusal) in [(0, other, Kind::Altered), (1, Bytes::new(9), Kind::Source)] {
        let (mark, _) = begun(&server, id(number))?;
        assert_eq!(kind(goes_on(&server, id(number), &mut archive, mark)?), Some(refusal));
        assert_eq!(sound(&own)?, []);
        assert!(!own.join(id(number).data().as_str()).exists());
    }
    Ok(())
}

#[test]
fn an_archive_that_has_its_name_already_is_left_there_if_it_is_the_one() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("backup").join("group");
    let (archive, store) = (&mut Bytes::new(SIZE), server.store(server.target("backup")?)?);
    upload(&store, id(1), archive)?;
    let [data, manifest] = [id(1).data(), id(1).manifest()].map(|name| own.join(name.as_str()));
    let written = fs::metadata(&data)?.modified()?;
    // All of it, and all but the manifest.
    for _ in 0..2 {
        goes_on(&server, id(1), archive, Mark { turn: 0, taken: SIZE as u64 })?.context("goes on")?;
        assert_eq!((sound(&own)?, fs::read_dir(&own)?.count()), (vec![id(1)], 2));
        assert_eq!(fs::metadata(&data)?.modified()?, written, "it was written again");
        fs::remove_file(&manifest)?;
    }
    // One that only has the name never gets a manifest.
    overwrite(&data, |bytes| bytes[SIZE / 2] ^= 1)?;
    assert_eq!(kind(goes_on(&server, id(1), archive, Mark::default())?), Some(Kind::Altered));
    assert_eq!((sound(&own)?, manifest.exists()), (vec![], false));
    Ok(())
}
