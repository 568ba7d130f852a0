//! Every reader against damaged samples: seeded, bounded, in every run of the tests.
//!
//! `MFPSYNC_FUZZ_SEED` repeats a run, `MFPSYNC_FUZZ_ROUNDS` makes it longer.

use mfpsync_addressbook::Format;

use super::sample;

const CORPUS: [(Format, &str); 5] = [
    (Format::Csv, "address-list.csv"),
    (Format::Csv, "one-touch.csv"),
    (Format::Abk, "address-list.abk"),
    (Format::Ldif, "directory.ldif"),
    (Format::Vcard, "contacts.vcf"),
];
/// Pieces that mean something to one of the formats.
const TOKENS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\n ",
    b"\n\t",
    b"\"",
    b",",
    b";",
    b":",
    b"::",
    b":<",
    b"#",
    b"\\",
    b"=",
    b"\xff",
    b"\x81",
    b"\0",
    b"dn: 201\n",
    b"objectclass: groupfids\n",
    b"member: 201,9\n",
    b"\nchangetype: add\n",
    b"BEGIN:VCARD\n",
    b"UID:1\n",
    b"UID:URN:UUID:230824D2-15CE-43A1-8B35-10B0B46EE1DA\n",
    b"FN:B\n",
    b"fn;X=1:C\n",
    b"a.EMAIL:b@example.com\n",
    b"a.TEL;FAX:tel:1\n",
    b"a.KIND:group\n",
    b"KIND:group\n",
    b"MEMBER:1\n",
    b"VERSION:3.0\n",
    b"END:x\n",
    b"END:VCARD\n",
    b"entryUUID: 230824D2-15CE-43A1-8B35-10B0B46EE1DA\n",
    b"objectClass: \n",
    b"objectClass: groupOfNames\n",
    b"member: cn=x\n",
    b"SN: B\n",
    b"cn: B\n",
    b"\xf0\x40",
];
/// A few seconds of a debug build.
const ROUNDS: u64 = 1500;
/// Of a sample so many bytes are used: small files find as much and are read faster.
const PIECE: usize = 3000;

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(40)).min(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied()).for_each(drop),
        3 => bytes[at] = random.next().to_le_bytes()[0],
        4 => bytes.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied()).for_each(drop),
        _ => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece).for_each(drop);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn damaged_files_are_read_or_refused_with_a_reason() {
    let seed = number("MFPSYNC_FUZZ_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64);
    println!("repeat with MFPSYNC_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let corpus = CORPUS.map(|(format, name)| {
        let mut bytes = sample(name);
        bytes.truncate(PIECE);
        (format, bytes)
    });
    let (mut read, mut refused) = (0, 0);
    for round in 0..number("MFPSYNC_FUZZ_ROUNDS").unwrap_or(ROUNDS) {
        let (format, mut bytes) = corpus[round as usize % corpus.len()].clone();
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                mutate(&mut bytes, &mut random);
            }
        }
        if check(format, &bytes) { read += 1 } else { refused += 1 }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused: the mutations are of no use");
}

/// What is read can be written, and what is written is a file of the same entries unless something was told to be left
/// out; what is refused names a line of the file.
fn check(format: Format, bytes: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    match format.read(bytes) {
        Ok((book, _)) => {
            let (written, left_out) = book.write().unwrap_or_else(|error| panic!("{error}: {}", shown()));
            if !book.entries().is_empty() {
                let again = format.read(&written).unwrap_or_else(|error| panic!("{error}: {}", shown())).0;
                if left_out.is_empty() {
                    for (found, entry) in again.entries().iter().zip(book.entries()) {
                        assert_eq!(found, entry, "{}", shown());
                    }
                    assert_eq!(again.entries().len(), book.entries().len(), "{}", shown());
                }
                let (once_more, _) = again.write().unwrap();
                assert_eq!(format.read(&once_more).unwrap().0.entries(), again.entries(), "{}", shown());
            }
            true
        }
        Err(error) => {
            let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
            assert!(!error.problems.is_empty());
            assert!(
                error.problems.iter().all(|problem| (1..=lines).contains(&problem.line)),
                "{error:?}: {}",
                shown()
            );
            false
        }
    }
}
