//! Small libraries preloaded into a daemon, between it and the system.
//!
//! Needs the C compiler that the build needs anyway, and a daemon that is linked dynamically.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds the library `name` of `fixtures` in `directory` and returns the environment that preloads it.
pub(crate) fn library(name: &str, directory: &Path) -> Result<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).with_extension("c");
    let library = directory.join(name).with_extension("so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .output()
        .with_context(|| format!("run {compiler}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(("LD_PRELOAD".to_owned(), library.display().to_string()))
}
