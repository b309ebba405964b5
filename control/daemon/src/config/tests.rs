//! Configurations: what they say, and what is wrong with them.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

fn parsed(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("x.toml"), text)
}

#[test]
fn what_is_shown_says_the_same_again() {
    let text = r#"
        data_dir = "/var/lib/\"odd\"\\ \u0007"
        names = ["control.example", "192.0.2.1"]
        [listen]
        web = "127.0.0.1:1"
        [log]
        level = "warn,sealift_control=debug"
        format = "json"
        [master_key]
        credential = "master"
        [audit]
        checkpoint_file = "/mnt/elsewhere/checkpoints"
        checkpoint_log = true
        checkpoint_every_seconds = 60
    "#;
    let config = parsed(text).unwrap();
    assert_eq!(config.listen.agents.port(), 8444, "what is not said stays");
    assert_eq!(parsed(&config.to_string()).unwrap(), config);
    assert_eq!(config.problems(), Vec::<String>::new());
    let plain = parsed("").unwrap();
    assert_eq!(plain.to_string().parse::<toml::Table>().unwrap().len(), 6);
    assert_eq!(plain.problems(), Vec::<String>::new());
}

#[test]
fn what_means_nothing_is_refused_with_its_line_and_name() {
    for (text, line, name) in [
        ("names = []\npasword = \"hunter2\"\n", 2, "pasword"),
        ("[listen]\n\nweb = \"127.0.0.1:1\"\nwbe = \"127.0.0.1:2\"\n", 4, "wbe"),
        ("[listem]\n", 1, "listem"),
        ("\n[listen]\nweb = \"here\"\n", 3, "socket address"),
        ("[log]\nformat = \"xml\"\n", 2, "xml"),
        ("[audit]\ncheckpoint_log = 1\n", 2, "boolean"),
        ("names = [\n", 1, ""),
    ] {
        let error = parsed(text).unwrap_err();
        let ConfigError::Parse { line: found, what, .. } = &error else { panic!("{error}") };
        assert!(*found == line && what.contains(name), "{text:?}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn everything_that_makes_no_sense_is_named() {
    let text = r#"
        names = ["a b", "ok.example"]
        [listen]
        web = "127.0.0.1:1"
        agents = "127.0.0.1:1"
        [log]
        level = "info,=x=y"
        [master_key]
        credential = "a"
        passphrase_file = "b"
        [audit]
        checkpoint_every_seconds = 1
    "#;
    let problems = parsed(text).unwrap().problems();
    let of = |what: &str| problems.iter().filter(|problem| problem.starts_with(what)).count();
    assert_eq!(
        ["names", "listen.agents", "log.level", "master_key:", "master_key.pass", "audit"].map(of),
        [1; 6],
        "{problems:#?}"
    );
    assert_eq!(parsed("names = []").unwrap().problems().len(), 1);
}

#[test]
fn the_file_in_the_data_directory_is_found_and_the_command_line_wins() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    assert!(matches!(Config::load(None, None), Err(ConfigError::NoDataDir)));
    assert_eq!(Config::load(None, Some(dir.path())).unwrap().names, Names::default());
    let text = format!("data_dir = {:?}\nnames = [\"one\"]\n", other.path());
    std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
    let config = Config::load(None, Some(dir.path())).unwrap();
    assert_eq!((config.names.0, config.data_dir), (vec!["one".to_owned()], dir.path().to_owned()));
    let named = Config::load(Some(&dir.path().join(FILE_NAME)), None).unwrap();
    assert_eq!(named.data_dir, other.path());
    assert!(matches!(Config::load(Some(&dir.path().join("none.toml")), None), Err(ConfigError::Read { .. })));
    std::fs::write(dir.path().join(FILE_NAME), "#".repeat(70_000)).unwrap();
    assert!(matches!(Config::load(None, Some(dir.path())), Err(ConfigError::Read { .. })));
}

#[test]
fn what_this_host_lacks_is_named() {
    let dir = TempDir::new().unwrap();
    let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    assert!(config.missing()[0].contains("has no daemon"), "{:?}", config.missing());
    std::fs::write(dir.path().join("control.db"), "").unwrap();
    assert!(config.missing()[0].starts_with("master_key"), "{:?}", config.missing());
    std::fs::write(dir.path().join("master.sealed"), "").unwrap();
    assert_eq!(config.missing(), Vec::<String>::new());
    let file = dir.path().join("passphrase");
    std::fs::write(&file, "").unwrap();
    let mut config = config;
    config.master_key.passphrase_file = Some(file.clone());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config.missing()[0].contains("0600"), "{:?}", config.missing());
    config.audit.checkpoint_file = Some("/nowhere/at/all".into());
    assert_eq!(config.missing().len(), 2);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(config.missing()[0].contains("0700"), "{:?}", config.missing());
}
