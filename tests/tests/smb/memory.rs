//! However large an archive is, whoever sends it needs no more memory.

use std::fs;
use std::io::{self, Read};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mfpsync_backup::store::Cancel;
use mfpsync_backup::upload::{Archive, Progress, Proven, Source, Upload, Whole};
use mfpsync_tests::{ShareServer, rounds, skip};

use crate::archive::{PATIENCE, id};

/// Tells the process that does it from the one that asks for it.
const ALONE: &str = "MFPSYNC_TEST_ALONE";
const MIB: u64 = 1 << 20;
/// Far above what either needs, and below what is sent.
const MOST: u64 = 64 * MIB;

/// So many zeros that are nowhere.
struct Zeros(u64);

impl Source for Zeros {
    fn size(&self) -> Option<u64> {
        Some(self.0)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(io::repeat(0).take(self.0 - offset)))
    }
}

impl Proven for Zeros {
    fn prove(&mut self, _read_back: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

impl Archive for Zeros {
    fn manifest(&mut self, whole: &Whole) -> io::Result<Vec<u8>> {
        Ok(whole.sha256.to_vec())
    }
}

/// The most memory that a process ever held.
fn peak(process: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes << 10)
}

#[test]
fn memory_does_not_grow_with_an_archive() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("may not look at helpers");
        return Ok(());
    }
    if std::env::var_os(ALONE).is_some() {
        return sent_alone();
    }
    // What other tests of this process hold is not counted.
    let this = std::env::current_exe()?;
    let name = "memory::memory_does_not_grow_with_an_archive";
    let output = Command::new(this).args([name, "--exact"]).env(ALONE, "1").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

fn sent_alone() -> Result<()> {
    let size = u64::from(rounds(160, 2_048)) * MIB;
    let server = ShareServer::default().start()?;
    let store = server.store(server.target("backup")?)?;
    let (mut looks, mut highest) = (0, 0);
    let cancel = Cancel::new()?;
    let observe = &mut |progress| {
        // At the end of each way, as it has been then.
        if let Progress::Sending(mark) = progress
            && mark.taken < size
        {
            return;
        }
        if matches!(progress, Progress::Proving(read) if read < size) {
            return;
        }
        for helper in server.helpers().unwrap_or_default() {
            if let Ok(peak) = peak(&helper.as_raw_nonzero().to_string()) {
                (looks, highest) = (looks + 1, peak.max(highest));
            }
        }
    };
    Upload { store: &store, cancel: &cancel, id: id(1), patience: PATIENCE, resume: None, observe }
        .run(&mut Zeros(size))?;
    assert_eq!(fs::metadata(server.folder("backup").join("group").join(id(1).data().as_str()))?.len(), size);
    assert!(looks >= 2, "nobody was seen");
    assert!(highest < MOST, "a helper held {highest} bytes");
    let this = peak("self")?;
    assert!(this < MOST, "{this} bytes were held here");
    Ok(())
}
