//! Every rule of the configuration, and the texts people get to read.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/mfpsync/mfpsyncd.toml"), text)
}

fn good(text: &str) -> Config {
    parse(&format!("data_dir = \"/var/lib/mfpsync\"\n{text}")).unwrap()
}

fn bad(text: &str) -> String {
    parse(&format!("data_dir = \"/var/lib/mfpsync\"\n{text}")).unwrap_err().to_string()
}

#[test]
fn the_data_directory_alone_is_enough() {
    let config = good("");
    assert_eq!(config.run_dir, Path::new("/run/mfpsync"));
    assert_eq!(config.listen, ["[::]:7450".parse().unwrap()]);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log_level, Level::Info);
    assert_eq!((config.heartbeat.as_secs(), config.reconnect_max.as_secs()), (15, 4));
    assert_eq!(config.local, Local::default());
    assert!(!config.name.is_empty());
}

#[test]
fn the_sample_is_valid_and_says_what_holds_without_it() {
    let sample = include_str!("../../deploy/config/sample.toml");
    let config = parse(sample).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/mfpsync"));
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = parse(&uncommented).unwrap();
    assert_eq!((all.limits, all.log_level, all.listen), (config.limits, config.log_level, config.listen));
    assert_eq!((all.heartbeat, all.reconnect_max), (config.heartbeat, config.reconnect_max));
    assert_eq!(all.run_dir, config.run_dir);
    assert_eq!(all.dial_only.len(), 1);
    assert_eq!(all.local.allow_uids, [990]);
}

#[test]
fn everything_can_be_set() {
    let config = good(
        r#"
        run_dir = "/tmp/run"
        name = "コピー機 2階"
        listen = ["192.0.2.7:9", "[2001:db8::7]:9"]
        advertise = ["copier.example.com:10", "[2001:db8::8]:11"]
        dial_only = ["192.0.2.1:12"]
        local = { group = 12, allow_uids = [1, 2] }
        [log]
        level = "debug"
        [limits]
        connections = 10
        outbox_bytes = 0x4_0000
        [sync]
        heartbeat_seconds = 5
        reconnect_max_seconds = 6
        [discovery]
        enabled = false
        interfaces = ["eth0", "br-lan"]
        "#,
    );
    assert_eq!(config.discovery.interfaces, ["eth0", "br-lan"]);
    assert!(!config.discovery.enabled && good("").discovery.enabled);
    assert_eq!(config.name, "コピー機 2階");
    assert_eq!(config.advertise[1].to_string(), "[2001:db8::8]:11");
    assert_eq!(config.dial_only[0].to_string(), "192.0.2.1:12");
    assert_eq!(config.local, Local { gid: Some(12), allow_uids: vec![1, 2] });
    assert_eq!((config.limits.connections, config.limits.outbox_bytes), (10, 0x4_0000));
}

#[test]
fn every_mistake_is_told_at_once_with_line_path_and_example() {
    assert_eq!(
        bad("run_dir = \"run\"\nlistn = []\n[limits]\nconnections = 5000\n[sync]\nheartbeat = 3\n"),
        "/etc/mfpsync/mfpsyncd.toml:2: run_dir: `run` is not an absolute path; \
         for example: run_dir = \"/run/mfpsync\"\n\
         /etc/mfpsync/mfpsyncd.toml:3: listn: is not a known key; known here: data_dir, run_dir, name, \
          listen, advertise, dial_only, local, log, limits, sync, history, communication_log, metrics, \
          discovery, backup\n\
         /etc/mfpsync/mfpsyncd.toml:5: limits.connections: 5000 is not within 1 and 1100; \
         for example: connections = 550\n\
         /etc/mfpsync/mfpsyncd.toml:7: sync.heartbeat: is not a known key; known here: \
         heartbeat_seconds, reconnect_max_seconds"
    );
}

#[test]
fn a_missing_data_directory_and_broken_toml_are_told() {
    assert_eq!(
        parse("").unwrap_err().to_string(),
        "/etc/mfpsync/mfpsyncd.toml:1: data_dir: is missing; \
         for example: data_dir = \"/var/lib/mfpsync\""
    );
    let broken = bad("name = \n");
    assert!(broken.starts_with("/etc/mfpsync/mfpsyncd.toml:2: "), "{broken}");
}

#[test]
fn values_of_the_wrong_shape_are_told() {
    for (text, what) in [
        ("name = 3", "name: is integer, not a text"),
        ("name = ' '", "name: a name has 1 to 64"),
        ("listen = []", "listen: is an empty list"),
        ("listen = ['example.com:1']", "listen: `example.com:1` is not an address"),
        ("listen = '[::]:1'", "listen: is string, not a list"),
        ("advertise = ['copier']", "advertise: `copier` is not host:port"),
        ("advertise = ['copier:0']", "advertise: `copier:0` is not host:port"),
        ("dial_only = ['2001:db8::1:80']", "dial_only: `2001:db8::1:80` is not host:port"),
        ("log = 3", "log: is integer, not a table"),
        ("[log]\nlevel = 'loud'", "log.level: `loud` is none of `error`, `warn`"),
        ("[local]\nallow_uids = [-1]", "local.allow_uids: -1 is not within"),
        ("[local]\ngroup = 'no-such-group-here'", "local.group: no group `no-such-group-here`"),
        ("[limits]\noutbox_bytes = 99999999999999999999", "limits.outbox_bytes: 99999999999999999999 is"),
        ("[sync]\nheartbeat_seconds = 1.5", "sync.heartbeat_seconds: is float, not a whole number"),
    ] {
        let told = bad(text);
        assert!(told.contains(what), "{text}\n{told}");
    }
}

#[test]
fn what_others_are_told_is_derived_from_what_is_listened_on() {
    let config = good("");
    let bound = ["192.0.2.7:7450".parse().unwrap(), "[::]:7451".parse().unwrap()];
    let told = config.advertised(&bound, &["192.0.2.8".parse().unwrap(), "2001:db8::8".parse().unwrap()]);
    assert_eq!(told[0].to_string(), "192.0.2.7:7450");
    assert_eq!(told[1], HostPort { host: host_name(), port: 7451 });
    assert_eq!(
        told[2..].iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.8:7451", "[2001:db8::8]:7451"]
    );
    let given = good("advertise = ['copier.example.com:1']");
    assert_eq!(given.advertised(&bound, &[]).len(), 1);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/mfpsyncd.toml")).unwrap_err().to_string();
    assert!(error.starts_with("read configuration /nonexistent/mfpsyncd.toml: "), "{error}");
}
