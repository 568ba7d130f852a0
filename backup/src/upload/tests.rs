//! Uploads to a store that fails wherever it can.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{Archive, Mark, Patience, Progress, Proven, Source, Upload, Whole};
use crate::layout::ArchiveId;
use crate::prune;
use crate::store::memory::{Fate, MemoryStore};
use crate::store::{ArchiveStore, CHUNK, Cancel, Kind, Result};
use crate::survey::Survey;

const ID: fn(u64) -> ArchiveId = |luck| ArchiveId::new(1_000, luck);
const PATIENCE: Patience = Patience { failures: 6, first: Duration::ZERO, longest: Duration::ZERO };

/// An archive of so many bytes that proves if all come back.
struct Bytes {
    bytes: Vec<u8>,
    good: bool,
}

impl Bytes {
    fn new(size: usize) -> Self {
        let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(size / 251 + 1);
        bytes.truncate(size);
        Self { bytes, good: true }
    }

    fn hash(&self) -> Vec<u8> {
        Sha256::digest(&self.bytes).to_vec()
    }
}

impl Source for Bytes {
    fn size(&self) -> Option<u64> {
        None
    }

    fn repeats(&self) -> bool {
        true
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.bytes.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

impl Proven for Bytes {
    fn prove(&mut self, read_back: &mut dyn Read) -> io::Result<()> {
        let mut first = [0];
        let _count = read_back.read(&mut first)?;
        if self.good { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl Archive for Bytes {
    fn manifest(&mut self, whole: &Whole) -> io::Result<Vec<u8>> {
        Ok(whole.sha256.to_vec())
    }
}

fn upload(store: &MemoryStore, archive: &mut Bytes, resume: Option<Mark>, cancel: &Cancel) -> Result<Whole> {
    let observe = &mut |_| ();
    Upload { store, cancel, id: ID(1), patience: PATIENCE, resume, observe }.run(archive)
}

/// Whether every archive with a manifest is what its manifest says.
fn sound(files: &BTreeMap<String, Vec<u8>>) -> bool {
    files.iter().filter(|(name, _)| name.ends_with(".manifest")).all(|(name, manifest)| {
        let data = files.get(&name.replace(".manifest", ".archive"));
        data.is_some_and(|data| Sha256::digest(data).as_slice() == manifest)
    })
}

/// A store that ends its calls as listed, and well after that.
fn store_with(fates: Vec<Fate>) -> MemoryStore {
    let mut fates = fates.into_iter();
    MemoryStore::new(move |_| fates.next().unwrap_or(Fate::Done))
}

#[test]
fn an_archive_is_there_whole_with_its_manifest_and_nothing_else_is_left() -> Result<()> {
    for size in [0, 1, CHUNK, 3 * CHUNK + 5] {
        let (store, archive) = (store_with(vec![]), &mut Bytes::new(size));
        let whole = upload(&store, archive, None, &Cancel::new()?)?;
        assert_eq!(whole.size, size as u64);
        let expected = [(ID(1).data(), archive.bytes.clone()), (ID(1).manifest(), archive.hash())];
        assert_eq!(store.files(), BTreeMap::from(expected.map(|(name, bytes)| (name.to_string(), bytes))));
    }
    Ok(())
}

#[test]
fn every_call_may_fail_once_in_every_way_and_the_archive_gets_there() -> Result<()> {
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let store = MemoryStore::new(move |_| {
        *count.lock().expect("count") += 1;
        Fate::Done
    });
    upload(&store, &mut Bytes::new(2 * CHUNK + 5), None, &Cancel::new()?)?;
    let calls = *calls.lock().expect("count");
    for at in 0..calls {
        for fate in [Fate::Refused(Kind::Busy), Fate::Refused(Kind::Timeout), Fate::AnswerLost, Fate::Torn] {
            let mut fates = vec![Fate::Done; at];
            fates.push(fate);
            let (store, archive) = (store_with(fates), &mut Bytes::new(2 * CHUNK + 5));
            store.watch(|files| assert!(sound(files)));
            upload(&store, archive, None, &Cancel::new()?)
                .unwrap_or_else(|error| panic!("{fate:?} at {at}: {error}"));
            assert_eq!(store.files().get(ID(1).data().as_str()), Some(&archive.bytes));
            assert_eq!(store.files().get(ID(1).manifest().as_str()), Some(&archive.hash()));
        }
    }
    Ok(())
}

#[test]
fn bytes_altered_on_their_way_are_noticed_before_the_archive_exists() -> Result<()> {
    for doing in ["write", "read"] {
        let store = MemoryStore::new(move |call| if call == doing { Fate::Altered } else { Fate::Done });
        let failed = upload(&store, &mut Bytes::new(CHUNK), None, &Cancel::new()?).expect_err("altered");
        assert_eq!(failed.kind, Kind::Altered);
        assert_eq!(store.files(), BTreeMap::new());
    }
    Ok(())
}

#[test]
fn an_archive_that_does_not_prove_never_exists() -> Result<()> {
    let (store, archive) = (store_with(vec![]), &mut Bytes { good: false, ..Bytes::new(9) });
    let failed = upload(&store, archive, None, &Cancel::new()?).expect_err("no proof");
    assert_eq!(failed.kind, Kind::Source);
    assert_eq!(store.files(), BTreeMap::new());
    Ok(())
}

#[test]
fn a_restarted_job_goes_on_where_the_server_had_it() -> Result<()> {
    let (store, archive, cancel) = (store_with(vec![]), &mut Bytes::new(5 * CHUNK), Cancel::new()?);
    let mut mark = None;
    let observe = &mut |progress| {
        if let Progress::Sending(at) = progress {
            mark = Some(at);
            if at.taken == 3 * CHUNK as u64 {
                cancel.cancel();
            }
        }
    };
    let first =
        Upload { store: &store, cancel: &cancel, id: ID(1), patience: PATIENCE, resume: None, observe };
    assert_eq!(first.run(archive).expect_err("told to end").kind, Kind::Cancelled);
    assert_eq!(mark, Some(Mark { turn: 0, taken: 3 * CHUNK as u64 }));

    let written = Arc::new(Mutex::new(0));
    let count = Arc::clone(&written);
    let second = MemoryStore::new(move |call| {
        *count.lock().expect("count") += usize::from(call == "write");
        Fate::Done
    });
    second.put(store.files());
    upload(&second, archive, mark, &Cancel::new()?)?;
    assert_eq!(second.files().get(ID(1).data().as_str()), Some(&archive.bytes));
    // What was left of the archive, and the manifest.
    assert_eq!(*written.lock().expect("count"), 2 + 1);
    Ok(())
}

#[test]
fn an_upload_cut_off_before_and_after_every_call_is_finished_by_the_next_life() -> Result<()> {
    let archive = &mut Bytes::new(2 * CHUNK + 5);
    for at in 0.. {
        for happens in [false, true] {
            let (cancel, mut calls) = (Cancel::new()?, 0);
            let switch = cancel.clone();
            let store = MemoryStore::new(move |_| {
                calls += 1;
                if calls <= at {
                    return Fate::Done;
                }
                switch.cancel();
                if happens { Fate::AnswerLost } else { Fate::Refused(Kind::Lost) }
            });
            store.watch(|files| assert!(sound(files)));
            let mut mark = Mark::default();
            let observe = &mut |progress| {
                if let Progress::Sending(at) = progress {
                    mark = at;
                }
            };
            let first = Upload {
                store: &store,
                cancel: &cancel,
                id: ID(1),
                patience: PATIENCE,
                resume: None,
                observe,
            };
            if first.run(archive).is_ok() {
                assert!(at > 10, "{at}");
                return Ok(());
            }
            // The mark of a while ago is as good.
            for mark in [mark, Mark::default()] {
                let next = store_with(vec![]);
                next.watch(|files| assert!(sound(files)));
                next.put(store.files());
                let whole = upload(&next, archive, Some(mark), &Cancel::new()?);
                let whole = whole.unwrap_or_else(|error| panic!("{happens} {at} {mark:?}: {error}"));
                assert_eq!(whole.size, archive.bytes.len() as u64);
                assert_eq!(next.files().get(ID(1).data().as_str()), Some(&archive.bytes));
                assert_eq!(next.files().get(ID(1).manifest().as_str()), Some(&archive.hash()));
            }
        }
    }
    Ok(())
}

#[test]
fn what_has_an_archives_name_and_is_another_one_is_left_and_said() -> Result<()> {
    let archive = &mut Bytes::new(9);
    for name in [ID(1).data(), ID(1).manifest()] {
        let store = store_with(vec![]);
        store.put(BTreeMap::from([(name.to_string(), vec![1; 9])]));
        let failed = upload(&store, archive, Some(Mark::default()), &Cancel::new()?).expect_err("another");
        assert_eq!(failed.kind, Kind::Altered);
        assert_eq!(store.files().get(name.as_str()), Some(&vec![1; 9]));
    }
    Ok(())
}

#[test]
fn a_part_that_changed_since_is_noticed() -> Result<()> {
    let archive = &mut Bytes::new(2 * CHUNK);
    let mark = Some(Mark { turn: 0, taken: CHUNK as u64 });
    for (found, result) in [
        (None, Ok(())),
        (Some(archive.bytes[..CHUNK - 1].to_vec()), Ok(())),
        (Some(vec![0; CHUNK]), Err(Kind::Altered)),
        (Some(vec![0; 3 * CHUNK]), Err(Kind::Altered)),
    ] {
        let store = store_with(vec![]);
        store.put(found.into_iter().map(|bytes| (ID(1).part(0).to_string(), bytes)).collect());
        let uploaded = upload(&store, archive, mark, &Cancel::new()?);
        assert_eq!(uploaded.map(drop).map_err(|error| error.kind), result);
        assert_eq!(store.files().contains_key(ID(1).manifest().as_str()), result.is_ok());
    }
    // The archive shrank: what was taken cannot be hashed any more.
    let store = store_with(vec![]);
    store.put(BTreeMap::from([(ID(1).part(0).to_string(), vec![0; CHUNK])]));
    let failed = upload(&store, &mut Bytes::new(9), mark, &Cancel::new()?).expect_err("shrank");
    assert_eq!(failed.kind, Kind::Source);
    Ok(())
}

#[test]
fn pruning_cut_off_anywhere_leaves_whole_archives_and_is_finished_by_the_next() -> Result<()> {
    let going = [ID(1), ID(2)];
    for at in 0..4 {
        for fate in [Fate::Refused(Kind::Lost), Fate::AnswerLost] {
            let mut fates = vec![Fate::Done; 1 + at];
            fates.push(fate);
            let store = store_with(fates);
            let archive = Bytes::new(9);
            let all = [ID(1), ID(2), ID(3)].into_iter();
            let files = |id: ArchiveId| [(id.data(), archive.bytes.clone()), (id.manifest(), archive.hash())];
            store.put(all.flat_map(files).map(|(name, bytes)| (name.to_string(), bytes)).collect());
            store.watch(|files| assert!(sound(files)));
            let cancel = Cancel::new()?;
            assert!(prune::remove(&mut *store.connect(&cancel)?, &going, &mut |_| ()).is_err());
            prune::remove(&mut *store.connect(&cancel)?, &going, &mut |_| ())?;
            let left = Survey::take(&mut *store.connect(&cancel)?)?;
            assert_eq!(left.archives.keys().copied().collect::<Vec<_>>(), [ID(3)]);
        }
    }
    Ok(())
}

#[test]
fn there_is_no_survey_of_a_folder_that_was_read_in_part() -> Result<()> {
    for doing in ["list", "open", "read"] {
        let store = MemoryStore::new(move |call| if call == doing { Fate::AnswerLost } else { Fate::Done });
        store.put(BTreeMap::from([
            (ID(1).manifest().to_string(), vec![1]),
            (ID(2).manifest().to_string(), vec![2]),
        ]));
        assert!(Survey::take(&mut *store.connect(&Cancel::new()?)?).is_err());
    }
    Ok(())
}

#[test]
fn only_what_was_left_behind_long_ago_is_swept() -> Result<()> {
    let (old, live, young) = (ArchiveId::new(100, 1), ArchiveId::new(100, 2), ArchiveId::new(900, 3));
    let store = store_with(vec![]);
    let whole = ArchiveId::new(100, 4);
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for id in [old, live, young] {
        files.insert(id.part(3).to_string(), vec![1]);
        files.insert(id.data().to_string(), vec![1]);
    }
    files.insert(whole.data().to_string(), vec![1]);
    files.insert(whole.manifest().to_string(), vec![2]);
    files.insert("notes.txt".to_owned(), vec![3]);
    store.put(files);
    let connection = &mut *store.connect(&Cancel::new()?)?;
    let survey = Survey::take(connection)?;
    assert_eq!(survey.archives[&whole].manifest, Some(vec![2]));
    let leftovers = survey.leftovers(&BTreeSet::from([live]), 1_000, 500);
    assert_eq!(leftovers, [old.part(3), old.data()]);
    prune::sweep(connection, &leftovers)?;
    assert_eq!(store.files().len(), 7);
    Ok(())
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let refused = prop::sample::select(vec![Kind::Busy, Kind::Lost, Kind::Timeout, Kind::Full, Kind::Denied]);
    prop_oneof![
        12 => Just(Fate::Done),
        1 => refused.prop_map(Fate::Refused),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Torn),
        1 => Just(Fate::Altered),
    ]
}

proptest! {
    #[test]
    fn an_archive_that_exists_is_whole_whatever_fails(
        fates in prop::collection::vec(any_fate(), 0..60),
        size in prop::sample::select(vec![0, 9, CHUNK, CHUNK + 9]),
    ) {
        let (store, archive) = (store_with(fates), &mut Bytes::new(size));
        store.watch(|files| assert!(sound(files)));
        let (cancel, mut publishing) = (Cancel::new().expect("switch"), false);
        let observe = &mut |progress| publishing |= progress == Progress::Publishing;
        let (id, patience, resume) = (ID(1), PATIENCE, None);
        let uploaded = Upload { store: &store, cancel: &cancel, id, patience, resume, observe }.run(archive);
        let files = store.files();
        let there = files.contains_key(ID(1).manifest().as_str());
        match uploaded {
            Ok(_) => {
                prop_assert!(there);
                prop_assert_eq!(files.get(ID(1).data().as_str()), Some(&archive.bytes));
            }
            Err(_) => prop_assert!(!there || publishing),
        }
    }
}
