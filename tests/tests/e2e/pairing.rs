//! Becoming a device of a group: the code, and everything that is not the code.

use mfpsync_proto::panel::{ClosePairingRequest, DevicesRequest, JoinPolicy, Role};
use mfpsync_tests::{Fleet, TestDevice, current, join, open_pairing, running};
use tonic::{Code, Status};

/// Another code of the same form.
fn wrong(code: &str) -> String {
    code.chars()
        .map(|digit| {
            if digit == '7' {
                '3'
            } else if digit.is_ascii_digit() {
                '7'
            } else {
                digit
            }
        })
        .collect()
}

async fn attempt(device: &TestDevice, server: &TestDevice, code: &str) -> Result<(), Status> {
    let address = server.address().to_string();
    join(device, &address, code, JoinPolicy::Merge).await.map(|_reply| ())
}

async fn fresh(name: &str) -> TestDevice {
    let mut device = TestDevice::started(name).await.unwrap();
    device.log.expect("pairing");
    device.log.expect("join");
    device
}

async fn group() -> Fleet {
    let mut fleet = Fleet::server_only().await.unwrap();
    fleet.server.log.expect("pairing refused");
    fleet
}

#[tokio::test]
async fn a_device_with_the_code_becomes_a_client_of_the_group() {
    let fleet = group().await;
    let device = fresh("copier").await;
    let pairing = open_pairing(&fleet.server).await.unwrap();
    assert_eq!(pairing.code.chars().filter(char::is_ascii_digit).count(), 8, "{}", pairing.code);
    assert_eq!(pairing.tries, 5);
    assert!((1..=600).contains(&pairing.seconds), "{} s of ten minutes", pairing.seconds);
    assert!(pairing.addresses.contains(&fleet.server.address().to_string()), "{:?}", pairing.addresses);

    let address = fleet.server.address().to_string();
    let reply = join(&device, &address, &pairing.code, JoinPolicy::Merge).await.unwrap();
    assert_eq!(reply.group_name, "Office");
    running(&device, Role::Client).await.unwrap();
    current(&device).await.unwrap();

    let (here, there) = (device.status().await.unwrap(), fleet.server.status().await.unwrap());
    let (here_group, there_group) = (here.group.unwrap(), there.group.unwrap());
    assert_eq!(reply.group_id, there_group.group_id);
    assert_eq!(here_group.group_id, there_group.group_id);
    assert_eq!(here_group.server_device_id, there.device_id);
    let listed = fleet.server.panel().unwrap().devices(DevicesRequest {}).await.unwrap().into_inner().devices;
    let joined = listed.iter().find(|listed| listed.id == here.device_id).unwrap();
    assert_eq!((joined.name.as_str(), joined.connected, joined.released), ("copier", true, false));
}

#[tokio::test]
async fn a_wrong_code_is_refused_with_a_text_to_act_on_and_changes_nothing() {
    let fleet = group().await;
    let device = fresh("copier").await;
    let code = open_pairing(&fleet.server).await.unwrap().code;
    let refused = attempt(&device, &fleet.server, &wrong(&code)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(
        refused.message(),
        "wrong pairing code; 4 tries are left; check the code at the server and type it again"
    );
    let status = device.status().await.unwrap();
    assert_eq!(status.running(), Role::Idle);
    assert!(status.group.is_none());
    attempt(&device, &fleet.server, &code).await.unwrap();
}

#[tokio::test]
async fn the_sixth_try_is_refused_even_with_the_right_code() {
    let fleet = group().await;
    let device = fresh("copier").await;
    let code = open_pairing(&fleet.server).await.unwrap().code;
    for _ in 0..5 {
        let refused = attempt(&device, &fleet.server, &wrong(&code)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let refused = attempt(&device, &fleet.server, &code).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(refused.message(), "too many tries; open pairing again at the server");
    assert_eq!(device.status().await.unwrap().running(), Role::Idle);

    let fresh_code = open_pairing(&fleet.server).await.unwrap().code;
    attempt(&device, &fleet.server, &fresh_code).await.unwrap();
}

#[tokio::test]
async fn a_code_is_good_for_one_device() {
    let fleet = group().await;
    let (first, second) = (fresh("first").await, fresh("second").await);
    let code = open_pairing(&fleet.server).await.unwrap().code;
    attempt(&first, &fleet.server, &code).await.unwrap();
    let refused = attempt(&second, &fleet.server, &code).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(refused.message(), "pairing is not open at the server; open it there, then join again");
    assert_eq!(second.status().await.unwrap().running(), Role::Idle);
}

#[tokio::test]
async fn pairing_that_was_never_opened_or_was_closed_does_not_exist() {
    let fleet = group().await;
    let device = fresh("copier").await;
    let refused = attempt(&device, &fleet.server, "12345678").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    let code = open_pairing(&fleet.server).await.unwrap().code;
    fleet.server.panel().unwrap().close_pairing(ClosePairingRequest {}).await.unwrap();
    let refused = attempt(&device, &fleet.server, &code).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let shown = fleet.server.status().await.unwrap().server.unwrap();
    assert_eq!(shown.pairing_seconds_left, None);
}

#[tokio::test]
async fn what_is_no_code_and_no_address_is_told_before_anything_is_dialled() {
    let device = fresh("copier").await;
    for (address, code) in [("127.0.0.1:1", "1234567"), ("127.0.0.1:1", "abcdefgh"), ("nowhere", "12345678")]
    {
        let refused = join(&device, address, code, JoinPolicy::Merge).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{address} {code}: {refused}");
        assert!(!refused.message().is_empty());
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_as_the_reason() {
    let device = fresh("copier").await;
    let nobody = TestDevice::new("nobody").unwrap();
    let refused = attempt(&device, &nobody, "12345678").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("reach"), "{}", refused.message());
    assert_eq!(device.status().await.unwrap().running(), Role::Idle);
}

#[tokio::test]
async fn a_device_of_a_group_joins_no_second_one() {
    let fleet = Fleet::start(1).await.unwrap();
    let other = group().await;
    let code = open_pairing(&other.server).await.unwrap().code;
    let refused = attempt(&fleet.clients[0], &other.server, &code).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(refused.message(), "this device is client already; end that first, then join");
    current(&fleet.clients[0]).await.unwrap();
}
