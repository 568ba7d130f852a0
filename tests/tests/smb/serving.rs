//! What a share does when nothing is wrong, and what it says to what cannot be.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::Result;
use mfpsync_backup::prune;
use mfpsync_backup::smb::{Library, Target};
use mfpsync_backup::store::{CHUNK, Connection, Entry, Kind, Name};
use mfpsync_backup::survey::Survey;
use mfpsync_tests::{ShareServer, skip, smb_library};

use crate::archive::{Bytes, id, sound, upload};
use crate::{connect, kind, refused};

fn write(share: &mut dyn Connection, file: &str, bytes: &[u8]) -> Result<()> {
    share.create(&Name::parse(file)?)?;
    bytes.chunks(CHUNK).try_for_each(|chunk| share.write(chunk))?;
    Ok(share.finish()?)
}

fn read(share: &mut dyn Connection, file: &str) -> Result<Vec<u8>> {
    share.open(&Name::parse(file)?)?;
    let mut all = Vec::new();
    loop {
        let chunk = share.read()?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend(chunk);
    }
}

#[test]
fn files_are_written_listed_read_renamed_and_removed() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let share = &mut *connect(&store)?;
    assert_eq!(share.list()?, []);
    assert!(share.room()? > 1 << 20);
    let large = Bytes::new(3_500_000).bytes;
    for (file, bytes) in [("empty", &[][..]), ("one", b"1"), ("large", &large)] {
        write(share, file, bytes)?;
        assert_eq!(share.size(&Name::parse(file)?)?, Some(bytes.len() as u64));
        assert_eq!(read(share, file)?, bytes);
    }
    share.rename(&Name::parse("one")?, &Name::parse("two")?)?;
    share.remove(&Name::parse("empty")?)?;
    let mut list = share.list()?;
    list.sort_by(|a, b| a.name.cmp(&b.name));
    let entry = |name, size| Ok::<_, anyhow::Error>(Entry { name: Name::parse(name)?, size });
    assert_eq!(list, [entry("large", large.len() as u64)?, entry("two", 1)?]);
    assert_eq!(share.size(&Name::parse("one")?)?, None);
    Ok(())
}

#[test]
fn an_archive_of_nothing_and_one_of_a_byte_are_archives() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let own = server.folder("backup").join("group");
    for size in [0, 1] {
        let whole = upload(&store, id(size), &mut Bytes::new(usize::try_from(size)?))?;
        assert_eq!(whole.size, size);
        assert_eq!(fs::metadata(own.join(id(size).data().as_str()))?.len(), size);
    }
    assert_eq!(sound(&own)?, [id(0), id(1)]);
    Ok(())
}

#[test]
fn nothing_is_replaced_and_no_folder_removed() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let share = &mut *connect(&store)?;
    write(share, "a", b"first")?;
    write(share, "b", b"second")?;
    fs::create_dir(server.folder("backup").join("group/c"))?;
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Name::parse);
    let (a, b, c, d) = (a?, b?, c?, d?);
    assert_eq!(kind(share.rename(&a, &b)), Some(Kind::Exists));
    assert_eq!(kind(share.rename(&a, &c)), Some(Kind::Exists));
    assert_eq!(kind(share.create(&b)), Some(Kind::Exists));
    assert_eq!(kind(share.remove(&c)), Some(Kind::WrongType));
    assert_eq!(kind(share.open(&c)), Some(Kind::WrongType));
    assert_eq!(kind(share.remove(&d)), Some(Kind::NotFound));
    assert_eq!(kind(share.open(&d)), Some(Kind::NotFound));
    assert_eq!(kind(share.rename(&d, &Name::parse("e")?)), Some(Kind::NotFound));
    assert_eq!((read(share, "a")?, read(share, "b")?), (b"first".to_vec(), b"second".to_vec()));
    assert_eq!(share.list()?.len(), 2);
    Ok(())
}

#[test]
fn a_file_goes_on_beyond_four_gibibytes() -> Result<()> {
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let share = &mut *connect(&store)?;
    let name = Name::parse("large")?;
    share.create(&name)?;
    share.finish()?;
    let path = server.folder("backup").join("group/large");
    File::options().write(true).open(&path)?.set_len(5 << 30)?;
    assert_eq!(share.size(&name)?, Some(5 << 30));
    share.resume(&name, 5 << 30)?;
    share.write(b"beyond")?;
    share.finish()?;
    assert_eq!(share.list()?, [Entry { name, size: (5 << 30) + 6 }]);
    Ok(())
}

#[test]
fn folders_may_have_any_name_and_files_of_others_are_not_seen() -> Result<()> {
    let server = ShareServer::default().start()?;
    let folder = "Büro 100%25 #1 & more/宛先 表";
    let own = server.folder("backup").join(folder).join("group");
    fs::create_dir_all(&own)?;
    let store = server.store(Target { folder: folder.to_owned(), ..server.target("backup")? })?;
    upload(&store, id(1), &mut Bytes::new(9))?;
    assert_eq!(sound(&own)?, [id(1)]);
    for number in 0..1_500 {
        fs::write(own.join(format!("{number} of others.txt")), "")?;
        fs::write(own.join(format!("{number}.txt")), "")?;
    }
    fs::create_dir(own.join("folder"))?;
    let share = &mut *connect(&store)?;
    assert_eq!(share.list()?.len(), 1_502);
    assert_eq!(Survey::take(share)?.archives.keys().copied().collect::<Vec<_>>(), [id(1)]);
    Ok(())
}

#[test]
fn a_place_that_is_not_there_is_told_apart() -> Result<()> {
    let server = ShareServer::default().start()?;
    fs::write(server.folder("backup").join("file"), "")?;
    for (share, folder, expected) in [
        ("no-such", "", Kind::NoSuchShare),
        ("denied", "", Kind::Denied),
        ("backup", "no-such", Kind::NotFound),
        ("backup", "file", Kind::WrongType),
        ("ro", "", Kind::Denied),
    ] {
        let store = server.store(Target { folder: folder.to_owned(), ..server.target(share)? })?;
        assert_eq!(refused(&store), Some(expected), "{share}/{folder}");
    }
    fs::write(server.folder("backup").join("group"), "")?;
    assert_eq!(refused(&server.store(server.target("backup")?)?), Some(Kind::WrongType));
    Ok(())
}

#[test]
fn what_is_not_allowed_is_said_and_changes_nothing() -> Result<()> {
    let server = ShareServer::default().start()?;
    let own = server.folder("ro").join("group");
    fs::create_dir(&own)?;
    fs::write(own.join("a"), "a")?;
    let store = server.store(server.target("ro")?)?;
    assert_eq!(kind(upload(&store, id(1), &mut Bytes::new(9))), Some(Kind::Denied));
    let share = &mut *connect(&store)?;
    let a = Name::parse("a")?;
    assert_eq!(kind(share.remove(&a)), Some(Kind::Denied));
    assert_eq!(kind(share.rename(&a, &Name::parse("b")?)), Some(Kind::Denied));
    assert_eq!(kind(share.resume(&a, 0)), Some(Kind::Denied));
    assert_eq!(read(share, "a")?, b"a");
    assert_eq!(share.list()?.len(), 1);

    fs::write(own.join(id(1).data().as_str()), "")?;
    fs::write(own.join(id(1).manifest().as_str()), "")?;
    let removed = &mut Vec::new();
    assert_eq!(kind(prune::remove(share, &[id(1)], &mut |id| removed.push(id))), Some(Kind::Denied));
    assert_eq!((removed.len(), share.list()?.len()), (0, 3));
    Ok(())
}

#[test]
fn a_folder_in_which_nothing_may_be_removed_takes_archives() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("may not act as two users");
        return Ok(());
    }
    let server = ShareServer::default().start()?;
    let own = server.folder("noperm").join("group");
    fs::create_dir(&own)?;
    // Everybody may write there; what somebody has written, they alone rename and remove.
    fs::set_permissions(&own, Permissions::from_mode(0o1777))?;
    let store = server.store(server.target("noperm")?)?;
    for luck in [1, 2] {
        upload(&store, id(luck), &mut Bytes::new(9))?;
        for name in [id(luck).data(), id(luck).manifest()] {
            chown(own.join(name.as_str()), Some(0), None)?;
            fs::set_permissions(own.join(name.as_str()), Permissions::from_mode(0o644))?;
        }
    }
    upload(&store, id(3), &mut Bytes::new(9))?;
    let share = &mut *connect(&store)?;
    let removed = &mut Vec::new();
    let refused = prune::remove(share, &[id(1), id(2)], &mut |id| removed.push(id));
    assert_eq!((kind(refused), removed.len()), (Some(Kind::Denied), 0));
    assert_eq!(kind(share.remove(&id(1).data())), Some(Kind::Denied));
    assert_eq!(kind(share.rename(&id(1).data(), &id(9).data())), Some(Kind::Denied));
    assert_eq!(sound(&own)?, [id(1), id(2), id(3)]);
    // The connection is of use still, and what is one's own goes.
    prune::remove(share, &[id(3)], &mut |_| ())?;
    assert_eq!(sound(&own)?, [id(1), id(2)]);
    Ok(())
}

#[test]
fn a_file_that_may_not_be_read_is_said_to_be_so() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("may not act as two users");
        return Ok(());
    }
    let server = ShareServer::default().start()?;
    let own = server.folder("noperm").join("group");
    fs::create_dir(&own)?;
    fs::set_permissions(&own, Permissions::from_mode(0o755))?;
    fs::write(own.join("a"), "a")?;
    fs::set_permissions(own.join("a"), Permissions::from_mode(0o600))?;
    let share = &mut *connect(&server.store(server.target("noperm")?)?)?;
    let a = Name::parse("a")?;
    match smb_library()? {
        Library::Libsmbclient => assert_eq!(share.size(&a)?, Some(1)),
        // It asks for more than a size.
        Library::Native => assert_eq!(kind(share.size(&a)), Some(Kind::Denied)),
    }
    assert_eq!(kind(share.open(&a)), Some(Kind::Denied));
    assert_eq!(kind(share.create(&Name::parse("b")?)), Some(Kind::Denied));
    Ok(())
}
