//! Groups name their members by number in a file and by entry id in the product: the list in a `member` cell, and
//! which number an entry has.
//!
//! Called by the two formats of the vendor. It neither reads nor writes rows.
//!
//! The vendor's manuals do not say what separates the numbers, so the usual ones are all understood, and whatever is
//! no number of the file is kept as it stands rather than guessed at.

/// What may stand between numbers; the first is ours.
pub(crate) const SEPARATORS: [char; 4] = [',', ';', '|', ' '];

/// What the cell lists, in its order.
pub(crate) fn listed(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(|char: char| SEPARATORS.contains(&char) || char.is_whitespace())
        .filter(|token| !token.is_empty())
}

/// What separates the numbers in this cell, if there are two.
pub(crate) fn separator(cell: &str) -> Option<char> {
    let mut found = cell.trim().matches(SEPARATORS).filter_map(|text| text.chars().next());
    let first = found.next()?;
    // A blank beside another separator is only decoration.
    Some(if first == ' ' { found.find(|&char| char != ' ').unwrap_or(first) } else { first })
}

/// The number an index stands for: one to nine digits, so that free ones above it exist.
pub(crate) fn number(index: &str) -> Option<u32> {
    let digits = index.trim();
    let sound = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_understood_whatever_separates_them() {
        for cell in ["201,202", "201;202", "201|202", " 201 202 ", "201, 202,", "201\n202"] {
            assert_eq!(listed(cell).collect::<Vec<_>>(), ["201", "202"], "{cell:?}");
        }
        assert_eq!(listed("1:201").collect::<Vec<_>>(), ["1:201"]);
    }

    #[test]
    fn the_separator_of_a_file_is_taken_from_its_lists() {
        assert_eq!(separator("201;202"), Some(';'));
        assert_eq!(separator("201 ; 202"), Some(';'));
        assert_eq!(separator("201 202"), Some(' '));
        assert_eq!(separator(" 201 "), None);
    }

    #[test]
    fn numbers_have_one_to_nine_digits() {
        assert_eq!(number("0201"), Some(201));
        assert_eq!(number(" 7 "), Some(7));
        for text in ["", "+7", "7a", "1234567890", "７"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
