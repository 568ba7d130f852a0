//! Files that are refused: each names line and column, and says nothing of what a cell holds.

use mfpsync_addressbook::csv::{self, MAX_CELL_BYTES, MAX_FILE_BYTES, MAX_ROWS};
use mfpsync_addressbook::{MAX_PROBLEMS, ProblemKind};

use super::{file, problems, sample_text};

#[test]
fn other_files_are_not_taken_for_an_address_book() {
    let unknown = ["line 1: not an address book of this format"];
    for text in
        ["", "\n", "objectclass,cn\nemail,Ann\n", "# Canon AddressBook version: 1\n", "\0\0\0", "# \n"]
    {
        assert_eq!(problems(text), unknown, "{text:?}");
    }
    let without_first_line = sample_text("address-list.csv").split_once("\r\n").unwrap().1.to_owned();
    assert_eq!(problems(without_first_line), unknown);
    for version in ["", "two", "0x", "0x100000000", "-1"] {
        let text = format!("# Canon AddressBook CSV version: {version}\nobjectclass\n");
        assert_eq!(problems(text), ["line 1: unreadable version number"], "{version}");
    }
}

#[test]
fn a_file_without_column_names_is_refused_without_showing_its_first_entry() {
    assert_eq!(problems(file("")), ["line 6: row of column names is missing"]);
    assert_eq!(problems(file("email,Ann\nemail,Bob\n")), ["line 6, column objectclass: column is missing"]);
}

#[test]
fn doubtful_column_names_are_refused() {
    assert_eq!(
        problems(file("objectclass,,cn,\"x y\",CN,\"x y\",\n")),
        [
            "line 6, column #2: column has no name",
            "line 6, column CN: column appears twice",
            "line 6, column #6: column appears twice",
        ]
    );
    // It would become a field that no device stores.
    let long = "x".repeat(201);
    assert_eq!(
        problems(file(&format!("objectclass,\"a\nb\",\u{7f},{},{long}\n", &long[1..]))),
        [
            "line 6, column #2: name of the column is longer than 200 bytes or holds control characters",
            "line 6, column #3: name of the column is longer than 200 bytes or holds control characters",
            "line 6, column #5: name of the column is longer than 200 bytes or holds control characters",
        ]
    );
    assert_eq!(problems(file("objectclass,\"cn\n")), ["line 6: quote is never closed"]);
    assert_eq!(
        problems(file(&format!("objectclass{}\n", ",x".repeat(120)))),
        ["line 6: more than 120 columns"]
    );
    assert_eq!(
        problems(file(&format!("objectclass{}\n", ",".repeat(5000)))),
        ["line 6: more than 120 columns"]
    );
}

#[test]
fn rows_of_another_width_are_refused() {
    assert_eq!(
        problems(file("objectclass,cn,mailaddress\nemail,Ann\nemail,Ann,ann@example.com,x\nemail\n")),
        [
            "line 7, column mailaddress: row has 2 cells instead of 3",
            "line 8, column #4: row has 4 cells instead of 3",
            "line 9, column cn: row has 1 cells instead of 3",
        ]
    );
    assert_eq!(
        problems(file("objectclass,cn,\nemail,Ann,x\n")),
        ["line 7, column #3: column has no name"],
        "a cell under the trailing comma"
    );
}

#[test]
fn an_unterminated_quote_is_told_where_it_begins() {
    assert_eq!(
        problems(file(
            "objectclass,cn,mailaddress\nemail,\"A\nB\",\nemail,\"Ann,ann@example.com\nemail,Bob,\n"
        )),
        ["line 9, column cn: quote is never closed"]
    );
    assert_eq!(
        problems(file("objectclass,cn\nemail,\"Ann\" x\nemail,\"Bob\n")),
        ["line 7, column cn: text follows a closing quote", "line 8, column cn: quote is never closed"]
    );
}

#[test]
fn an_index_twice_is_refused_at_the_second() {
    assert_eq!(
        problems(file(
            "objectclass,cn,indxid\nemail,\"A\r\nB\",201\nemail,C,202\nemail,D,0201\nemail,E,201\n"
        )),
        [
            "line 10, column indxid: number already stands in line 7",
            "line 11, column indxid: number already stands in line 7",
        ]
    );
    assert_eq!(
        problems(file("objectclass,indxid\nemail,ann@example.com\nemail,1234567890\n")),
        [
            "line 7, column indxid: not a number of one to nine digits",
            "line 8, column indxid: not a number of one to nine digits",
        ]
    );
}

#[test]
fn invalid_utf8_is_told_with_its_line_and_column() {
    let mut bytes = file("objectclass,cn,mailaddress\nemail,\"A\nB\",\nemail,").into_bytes();
    bytes.extend_from_slice(b"\x93\xc4\x92\x86,x\n");
    assert_eq!(problems(&bytes), ["line 9, column cn: invalid UTF-8"]);

    let mut bytes =
        b"# Canon AddressBook CSV version: 0x0002\n# CharSet: UTF-8\n# SubAddressBookName: ".to_vec();
    bytes.extend_from_slice(b"\x93\n\nobjectclass\n");
    assert_eq!(problems(&bytes), ["line 3: invalid UTF-8"]);
    assert_eq!(problems([file("objectclass,c").as_bytes(), b"\xff\n"].concat()), ["line 6: invalid UTF-8"]);
}

#[test]
fn other_character_sets_are_refused_by_name() {
    for name in ["WCP1252", "SHIFT_JIS", "SJIS"] {
        let mut bytes = format!(
            "# Canon AddressBook CSV version: 0x0002\r\n# Charset: {name},,\r\n# SubAddressBookName: "
        )
        .into_bytes();
        bytes.extend_from_slice(b"\x93\xc4\r\n\r\nobjectclass,cn\r\nemail,\x93\xc4\r\n");
        let error = csv::read(&bytes).unwrap_err();
        assert_eq!(error.problems[0].what, ProblemKind::CharSet { name: name.to_owned() });
        let shown = format!("read address book: line 2: character set {name} is not supported yet");
        assert_eq!(error.to_string(), shown);
    }
    assert_eq!(problems(b"\xff\xfe#\0 \0"), ["line 1: character set UTF-16 is not supported yet"]);
}

#[test]
fn an_entry_without_class_is_refused() {
    assert_eq!(problems(file("objectclass,cn\n,Ann\n")), ["line 7, column objectclass: cell is empty"]);
}

#[test]
fn limits_are_kept_and_named() {
    let long = "x".repeat(MAX_CELL_BYTES);
    assert!(csv::read(file(&format!("objectclass,cn\nemail,{long}\nemail,\"{long}\"\n")).as_bytes()).is_ok());
    assert_eq!(
        problems(file(&format!("objectclass,cn\nemail,{long}x\nemail,\"{long}x\"\n"))),
        ["line 7, column cn: longer than 65536 bytes", "line 8, column cn: longer than 65536 bytes"]
    );
    assert_eq!(problems(file(&format!("#{long}\nobjectclass\n"))), ["line 6: longer than 65536 bytes"]);
    assert_eq!(problems(file(&"#\n".repeat(1000))), ["line 66: more than 64 header lines"]);

    let rows = |count| file(&format!("objectclass\n{}", "email\n".repeat(count)));
    assert_eq!(csv::read(rows(MAX_ROWS).as_bytes()).unwrap().0.entries.len(), MAX_ROWS);
    assert_eq!(problems(rows(MAX_ROWS + 2)), ["line 50007: more than 50000 rows"]);

    let mut bytes = file("objectclass\n").into_bytes();
    bytes.resize(MAX_FILE_BYTES + 1, b'\n');
    assert_eq!(problems(&bytes), ["line 1: file is longer than 67108864 bytes"]);
}

#[test]
fn many_problems_are_listed_up_to_a_limit_and_counted_beyond() {
    let error =
        csv::read(file(&format!("objectclass,cn\n{}", "email\n".repeat(250))).as_bytes()).unwrap_err();
    assert_eq!((error.problems.len(), error.unlisted, error.count()), (MAX_PROBLEMS, 150, 250));
    assert_eq!(
        error.to_string(),
        "read address book: line 7, column cn: row has 1 cells instead of 2, and 249 more problems"
    );
}

#[test]
fn no_problem_or_notice_repeats_what_a_cell_holds() {
    let secret = "Hidden42";
    let refused = file(&format!(
        "objectclass,cn,pwd,indxid,{secret} name\nemail,\"{secret}\"x,,1,\nemail,{secret}\nemail,,,{secret},\nemail,\"{secret},,,"
    ));
    let error = csv::read(refused.as_bytes()).unwrap_err();
    assert_eq!(error.count(), 4);
    assert!(!format!("{error:?} {error}").contains(secret));
    let accepted = file(&format!("objectclass,pwd,member,uuid\ngroupfids,{secret},{secret},{secret}\n"));
    let (_, notices) = csv::read(accepted.as_bytes()).unwrap();
    assert_eq!(notices.len(), 3);
    assert!(!format!("{notices:?}").contains(secret));
}
