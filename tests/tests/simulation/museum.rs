//! What seeds have found once they go on finding: each file of `tests/museum` is run again, with the mistake
//! made on purpose that it must notice, if it names one, and without.

use std::fs;
use std::path::PathBuf;

use mfpsync_tests::sim::{Defect, Options, run};

/// One file of the museum.
struct Exhibit {
    name: String,
    seed: u64,
    /// A mistake made on purpose that this seed must notice.
    defect: Option<Defect>,
    /// The invariants that did not hold; with the mistake one of them does not again.
    invariants: Vec<String>,
}

fn exhibits() -> Vec<Exhibit> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("museum");
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    files.into_iter().map(|path| exhibit(&path)).collect()
}

fn exhibit(path: &PathBuf) -> Exhibit {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text: toml::Table =
        fs::read_to_string(path).unwrap().parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let word =
        |key: &str| text.get(key).map(|value| value.as_str().unwrap_or_else(|| panic!("{name}: {key}")));
    for told in ["found", "mended"] {
        assert!(word(told).is_some_and(|words| !words.is_empty()), "{name} does not say what it {told}");
    }
    let defect =
        word("defect").map(|defect| Defect::named(defect).unwrap_or_else(|| panic!("{name}: {defect}")));
    let invariants = text["invariants"].as_array().unwrap_or_else(|| panic!("{name}: invariants"));
    Exhibit {
        seed: u64::try_from(text["seed"].as_integer().unwrap()).unwrap(),
        defect,
        invariants: invariants.iter().map(|id| id.as_str().unwrap().to_owned()).collect(),
        name,
    }
}

#[test]
fn every_seed_of_the_museum_passes_and_notices_what_it_noticed() {
    let exhibits = exhibits();
    assert!(!exhibits.is_empty());
    for Exhibit { name, seed, defect, invariants } in exhibits {
        let right = Options { seed, defect: None, server_images: false, trace: false };
        assert_eq!(run(right).violation, None, "{name}");
        if defect.is_some() {
            let violation = run(Options { defect, ..right }).violation;
            let noticed =
                violation.as_ref().is_some_and(|text| invariants.iter().any(|id| text.starts_with(id)));
            assert!(noticed, "{name}: {violation:?}");
        }
    }
}
