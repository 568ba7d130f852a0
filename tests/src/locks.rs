//! Which locks there are on a file, as the kernel sees them. **Source**: proc_locks(5).

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
    let table = std::fs::read_to_string("/proc/locks").unwrap();
    let mut found: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|words| words.get(4).is_some_and(|place| place.ends_with(&inode)))
        .map(|words| words.join(" "))
        .collect();
    found.sort_unstable();
    found
}
