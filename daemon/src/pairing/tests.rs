use std::time::{Duration, Instant};

use mfpsync_storage::model::{DeviceId, PublicKey};
use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;

const SERVER: DeviceId = DeviceId([1; 16]);
const SERVER_KEY: PublicKey = PublicKey([1; 32]);
const EXPORTER: [u8; 32] = [5; 32];

fn code(text: &str) -> Code {
    Code::parse(text).unwrap()
}

fn newcomer() -> Newcomer {
    Newcomer { device: DeviceId([2; 16]), public_key: PublicKey([2; 32]), name: "lobby".to_owned() }
}

fn joiner(code: &Code) -> Joiner {
    let Newcomer { device, public_key, name } = newcomer();
    Joiner::start(code, device, public_key, &name)
}

fn hello(spake: &[u8]) -> Hello<'_> {
    Hello { spake, newcomer: newcomer(), server: SERVER, server_key: SERVER_KEY, exporter: EXPORTER }
}

/// A whole exchange, as it went in the end.
fn pair(
    window: &mut PairingWindow,
    code: &Code,
    session: u8,
    now: Instant,
) -> Result<Newcomer, PairingError> {
    let joiner = joiner(code);
    let answer = window.start(hello(joiner.message()), [session; 16], now)?;
    let joiner = joiner.answer(&answer.spake, SERVER, SERVER_KEY, &EXPORTER)?;
    let (newcomer, proof) = window.confirm(&answer.session, &joiner.proof(), &EXPORTER, now)?;
    assert!(joiner.accepts(&proof));
    Ok(newcomer)
}

fn opened(now: Instant) -> PairingWindow {
    let mut window = PairingWindow::new();
    window.open(code("12345678"), now);
    window
}

#[test]
fn the_right_code_pairs_once() {
    let now = Instant::now();
    let mut window = opened(now);
    assert_eq!(pair(&mut window, &code("1234-5678"), 1, now), Ok(newcomer()));
    assert_eq!(window.state(now), State::Closed);
    assert_eq!(pair(&mut window, &code("12345678"), 2, now), Err(PairingError::Closed));
    assert!(!window.accepts_connections(now));
}

#[test]
fn five_wrong_codes_use_up_the_window_even_for_the_right_one() {
    let now = Instant::now();
    let mut window = opened(now);
    for tries_left in (0..TRIES).rev() {
        let result = pair(&mut window, &code("12345679"), tries_left, now);
        assert_eq!(result, Err(PairingError::WrongCode { tries_left }));
    }
    assert_eq!(window.state(now), State::TooManyTries);
    assert_eq!(pair(&mut window, &code("12345678"), 9, now), Err(PairingError::TooManyTries));
    window.open(code("87654321"), now);
    assert!(pair(&mut window, &code("87654321"), 9, now).is_ok());
}

#[test]
fn the_fifth_try_may_still_succeed() {
    let now = Instant::now();
    let mut window = opened(now);
    for session in 0..4 {
        assert!(pair(&mut window, &code("00000000"), session, now).is_err());
    }
    assert!(pair(&mut window, &code("12345678"), 5, now).is_ok());
}

#[test]
fn a_start_costs_a_try_whether_or_not_it_is_confirmed() {
    let now = Instant::now();
    let mut window = opened(now);
    assert_eq!(window.start(hello(b"garbage"), [1; 16], now), Err(PairingError::Malformed("key exchange")));
    assert!(matches!(window.state(now), State::Open { tries_left: 4, .. }));
}

#[test]
fn at_most_four_exchanges_are_under_way() {
    let now = Instant::now();
    let mut window = opened(now);
    let joiner = joiner(&code("12345678"));
    for session in 0..4 {
        window.start(hello(joiner.message()), [session; 16], now).unwrap();
    }
    assert_eq!(window.start(hello(joiner.message()), [4; 16], now), Err(PairingError::Busy));
}

#[test]
fn abandoned_exchanges_make_room_for_others_and_are_void() {
    let now = Instant::now();
    let mut window = opened(now);
    let abandoned = joiner(&code("12345678"));
    let answer = window.start(hello(abandoned.message()), [0; 16], now).unwrap();
    for session in 1..4 {
        window.start(hello(abandoned.message()), [session; 16], now).unwrap();
    }
    let later = now + EXCHANGE;
    let abandoned = abandoned.answer(&answer.spake, SERVER, SERVER_KEY, &EXPORTER).unwrap();
    let late = window.confirm(&[0; 16], &abandoned.proof(), &EXPORTER, later);
    assert_eq!(late, Err(PairingError::UnknownSession));
    assert!(pair(&mut window, &code("12345678"), 5, later).is_ok());
}

#[test]
fn a_window_whose_last_exchange_was_abandoned_says_that_its_tries_are_used_up() {
    let now = Instant::now();
    let mut window = opened(now);
    for session in 0..4 {
        assert!(pair(&mut window, &code("00000000"), session, now).is_err());
    }
    window.start(hello(joiner(&code("12345678")).message()), [4; 16], now).unwrap();
    assert!(matches!(window.state(now), State::Open { tries_left: 0, .. }), "it may still succeed");
    assert_eq!(window.state(now + EXCHANGE), State::TooManyTries);
}

#[test]
fn a_window_expires_and_then_says_so_for_a_while() {
    let now = Instant::now();
    let mut window = opened(now);
    let joiner = joiner(&code("12345678"));
    let answer = window.start(hello(joiner.message()), [1; 16], now).unwrap();
    let joiner = joiner.answer(&answer.spake, SERVER, SERVER_KEY, &EXPORTER).unwrap();
    let late = now + LIFETIME;
    assert_eq!(window.confirm(&[1; 16], &joiner.proof(), &EXPORTER, late), Err(PairingError::Expired));
    assert_eq!(pair(&mut window, &code("12345678"), 2, late), Err(PairingError::Expired));
    assert_eq!(window.state(late), State::Expired);
    assert!(window.accepts_connections(late));
    assert!(!window.accepts_connections(late + Duration::from_secs(120)));
}

#[test]
fn a_proof_counts_only_once_and_only_on_its_own_connection() {
    let now = Instant::now();
    let mut window = opened(now);
    let joiner = joiner(&code("12345678"));
    let answer = window.start(hello(joiner.message()), [1; 16], now).unwrap();
    let joiner = joiner.answer(&answer.spake, SERVER, SERVER_KEY, &EXPORTER).unwrap();
    let proof = joiner.proof();
    let confirm = |window: &mut PairingWindow, exporter| window.confirm(&[1; 16], &proof, exporter, now);
    assert_eq!(confirm(&mut window, &[6; 32]), Err(PairingError::UnknownSession));
    assert!(confirm(&mut window, &EXPORTER).is_ok());
    assert_eq!(confirm(&mut window, &EXPORTER), Err(PairingError::Closed));
}

#[test]
fn whatever_the_two_sides_saw_differently_fails_the_proof() {
    let other_key = PublicKey([9; 32]);
    let other_device = DeviceId([9; 16]);
    let cases =
        [(other_device, SERVER_KEY, EXPORTER), (SERVER, other_key, EXPORTER), (SERVER, SERVER_KEY, [9; 32])];
    for (server, key, exporter) in cases {
        let now = Instant::now();
        let mut window = opened(now);
        let joiner = joiner(&code("12345678"));
        let answer = window.start(hello(joiner.message()), [1; 16], now).unwrap();
        let joiner = joiner.answer(&answer.spake, server, key, &exporter).unwrap();
        let result = window.confirm(&[1; 16], &joiner.proof(), &EXPORTER, now);
        assert_eq!(result, Err(PairingError::WrongCode { tries_left: 4 }));
    }
}

#[test]
fn a_server_that_does_not_know_the_code_is_not_accepted() {
    let now = Instant::now();
    let mut window = opened(now);
    let joiner = joiner(&code("00000001"));
    let answer = window.start(hello(joiner.message()), [1; 16], now).unwrap();
    let joiner = joiner.answer(&answer.spake, SERVER, SERVER_KEY, &EXPORTER).unwrap();
    assert!(!joiner.accepts(&joiner.proof()));
    assert!(!joiner.accepts(&[]));
    assert!(!joiner.accepts(&[0; PROOF_BYTES]));
}

#[test]
fn codes_are_read_as_people_type_them_and_never_shown_by_accident() {
    assert_eq!(code("1234 5678").reveal().as_str(), "12345678");
    assert_eq!(code(" 0000-0000 ").reveal().as_str(), "00000000");
    for wrong in ["", "1234567", "123456789", "1234567a", "１２３４５６７８"] {
        assert!(matches!(Code::parse(wrong), Err(CodeError::Malformed)), "{wrong}");
    }
    assert_eq!(format!("{:?}", code("12345678")), "***");
    let drawn = Code::generate(&SystemRandom::new()).unwrap();
    assert!(Code::parse(&drawn.reveal()).is_ok());
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic_nor_pair(
        spake in prop::collection::vec(any::<u8>(), 0..70),
        proof in prop::collection::vec(any::<u8>(), 0..70),
    ) {
        let now = Instant::now();
        let mut window = opened(now);
        let started = window.start(hello(&spake), [1; 16], now);
        prop_assert!(window.confirm(&[1; 16], &proof, &EXPORTER, now).is_err());
        let tried = matches!(window.state(now), State::Open { tries_left: 4, .. });
        prop_assert!(started.is_ok() || tried);
        let joiner = joiner(&code("12345678"));
        if let Ok(answered) = joiner.answer(&spake, SERVER, SERVER_KEY, &EXPORTER) {
            prop_assert!(!answered.accepts(&proof));
        }
    }
}
