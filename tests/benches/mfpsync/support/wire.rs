//! Bytes of TCP connections as the kernel counts them, asked of `ss`.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Connections by their local port, with the bytes sent and received.
pub(crate) type Connections = BTreeMap<u16, u64>;

/// Those of a process to a port of this machine.
///
/// # Errors
/// `ss` is missing or says something else.
pub(crate) fn connections(process: u32, to: u16) -> Result<Connections> {
    let output = Command::new("ss").args(["-tinHp", &format!("dport = :{to}")]).output();
    let output = output.context("run ss (Debian package iproute2)")?;
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (mut found, mut port) = (Connections::new(), None);
    for line in text.lines() {
        if line.starts_with(char::is_whitespace) {
            if let Some(port) = port.take() {
                found.insert(port, count(line, "bytes_sent:")? + count(line, "bytes_received:")?);
            }
        } else if line.contains(&format!("pid={process},")) {
            let local = line.split_whitespace().nth(3).and_then(|local| local.rsplit_once(':'));
            port = Some(local.context("a local address of ss")?.1.parse()?);
        }
    }
    Ok(found)
}

/// Absent if nothing passed yet.
fn count(line: &str, name: &str) -> Result<u64> {
    let field = line.split_whitespace().find_map(|field| field.strip_prefix(name));
    Ok(field.map(str::parse).transpose()?.unwrap_or(0))
}

/// All bytes that passed since `earlier`; connections that began since count whole.
pub(crate) fn passed(now: &Connections, earlier: &Connections) -> u64 {
    now.iter().map(|(port, bytes)| bytes.saturating_sub(earlier.get(port).copied().unwrap_or(0))).sum()
}
