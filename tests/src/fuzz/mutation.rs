//! Damage to bytes, drawn from a seed: cuts, copies, and pieces that mean something to one of the parsers.

/// Line ends, quotes, names and numbers that a format gives a meaning to.
const TOKENS: [&[u8]; 45] = [
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
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff\x7f",
    b"\x81",
    b"\xf0\x40",
    b"dn: 201\n",
    b"objectclass: groupfids\n",
    b"member: 201,9\n",
    b"\nchangetype: add\n",
    b"entryUUID: 230824D2-15CE-43A1-8B35-10B0B46EE1DA\n",
    b"objectClass: \n",
    b"objectClass: groupOfNames\n",
    b"member: cn=x\n",
    b"SN: B\n",
    b"cn: B\n",
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
    b"[sync]\n",
];

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`; zero when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end.max(1) as u64) as usize
    }
}

/// Damages bytes in one place.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(40)).min(bytes.len());
    let token = TOKENS[random.below(TOKENS.len())].iter().copied();
    match random.below(6) {
        _ if bytes.is_empty() => bytes.extend(token),
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..at, token)),
        3 => bytes[at] = random.draw().to_le_bytes()[0],
        4 => drop(bytes.splice(at..end, token)),
        _ => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            drop(bytes.splice(to..to, piece));
        }
    }
}
