//! Which locks there are on a file, as the kernel sees them. **Source**: proc_pid_fdinfo(5).
//!
//! Read for each descriptor of each process that may be looked at, which the kernel answers in one piece. Its table of all
//! locks comes in several, and shows one twice or not at all when others come and go between them.

use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The locks on a file, in a fixed order, each as kind, holder and range; none if there is no such file.
///
/// # Panics
/// The kernel does not tell.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a helper of a test fails it where it stands")]
pub fn locks(file: &Path) -> Vec<String> {
    let Ok(metadata) = std::fs::metadata(file) else { return Vec::new() };
    let inode = format!(":{}", metadata.ino());
    let mut found = Vec::new();
    for process in read_dir("/proc").unwrap().flatten() {
        // What is no process, is another user's, or has ended meanwhile.
        let Ok(descriptors) = read_dir(process.path().join("fdinfo")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(about) = read_to_string(descriptor.path()) else { continue };
            let locks = about.lines().filter_map(|line| line.strip_prefix("lock:"));
            let locks = locks.map(|lock| lock.split_whitespace().skip(1).collect::<Vec<_>>());
            let here = locks.filter(|words| words.get(4).is_some_and(|place| place.ends_with(&inode)));
            found.extend(here.map(|words| words.join(" ")));
        }
    }
    found.sort_unstable();
    found
}
