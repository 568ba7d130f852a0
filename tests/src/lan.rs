//! An office network of a test's own: network namespaces on one bridge, removed when dropped.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A bridge and the machines on it.
#[derive(Debug)]
pub struct Lan {
    bridge: String,
    machines: Vec<String>,
}

impl Lan {
    /// An empty network; `name` is at most 8 letters and no other test's.
    ///
    /// # Errors
    /// `ip` is not installed, or the test may not make networks.
    pub fn new(name: &str) -> Result<Self> {
        let bridge = format!("{name}{}", std::process::id() % 100_000);
        ip(&["link", "add", &bridge, "type", "bridge", "mcast_snooping", "0"])?;
        let lan = Self { bridge, machines: Vec::new() };
        ip(&["link", "set", &lan.bridge, "up"])?;
        Ok(lan)
    }

    /// Puts a machine on it, with these addresses (`address/bits`), and returns its namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn machine(&mut self, addresses: &[&str]) -> Result<String> {
        let namespace = format!("{}-{}", self.bridge, self.machines.len());
        ip(&["netns", "add", &namespace])?;
        self.machines.push(namespace.clone());
        let cable = namespace.as_str();
        ip(&["link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
        ip(&["link", "set", cable, "master", &self.bridge, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        for address in addresses {
            add(&namespace, address)?;
        }
        Ok(namespace)
    }

    /// Has a machine lose one in a hundred packets that come in.
    ///
    /// # Errors
    /// `nft` is not installed, or the system's.
    pub fn lose_packets(&self, namespace: &str) -> Result<()> {
        let rules = "table inet lossy { chain in { type filter hook input priority 0; \
                     iifname eth0 numgen random mod 100 < 1 drop; }; }";
        let words = ["netns", "exec", namespace, "nft", rules];
        ip(&words)
    }

    /// Gives a machine other addresses than it had.
    ///
    /// # Errors
    /// The system's.
    pub fn readdress(&self, namespace: &str, addresses: &[&str]) -> Result<()> {
        ip(&["-n", namespace, "addr", "flush", "dev", "eth0", "scope", "global"])?;
        addresses.iter().try_for_each(|address| add(namespace, address))
    }
}

fn add(namespace: &str, address: &str) -> Result<()> {
    let mut words = vec!["-n", namespace, "addr", "add", address, "dev", "eth0"];
    // Nobody else has it: no waiting until that is proven.
    words.extend(address.contains(':').then_some("nodad"));
    ip(&words)
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("run `ip` (package iproute2)")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", words.join(" "), told.trim());
    Ok(())
}

impl Drop for Lan {
    #[expect(clippy::print_stderr, reason = "what a test leaves behind must be seen")]
    fn drop(&mut self) {
        let machines = self.machines.iter().map(|machine| ip(&["netns", "del", machine]));
        let removed: Vec<_> = machines.chain([ip(&["link", "del", &self.bridge])]).collect();
        for error in removed.into_iter().filter_map(Result::err) {
            eprintln!("remove a test's network: {error:#}");
        }
    }
}
