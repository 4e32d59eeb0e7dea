//! Every message in every version, against an independent codec; and damaged ones.

mod cluster;
mod partitions;
mod topics;
mod transactions;

use std::fmt::Debug;

use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{self as theirs, Encodable, HeaderVersion, StrBytes};

use super::*;
use crate::error::ErrorKind;
use crate::kafka::protocol::draw::{Draw, seed};
use crate::kafka::protocol::{ErrorCode, Request, correlation_id, decode_frame, encode_frame};

const ROUNDS: u64 = 100;

/// A text as the other codec holds it.
fn text(draw: &mut Draw) -> StrBytes {
    StrBytes::from_string(draw.text())
}

/// The same numbers again in each round of each version.
fn every_version<R: Request>(mut check: impl FnMut(i16, &mut Draw)) {
    let seed = seed();
    for version in R::VERSIONS {
        for round in 0..ROUNDS {
            let mut draw = Draw::new(seed.wrapping_mul(1 << 32).wrapping_add(round));
            check(*version, &mut draw);
        }
    }
}

/// What is encoded here is, byte for byte, what the other codec makes of the same fields, and is
/// read by it.
fn compare_request<R: Request, T>(ours: &R, theirs: &T, version: i16, draw: &mut Draw)
where
    T: theirs::Request + PartialEq + Debug,
{
    assert_eq!(R::API_KEY, T::KEY);
    let (correlation_id, client_id) = (draw.i32(), draw.text());
    let mut out = vec![0xaa];
    encode_frame(ours, version, correlation_id, &client_id, &mut out);
    let len = i32::from_be_bytes(out[1..5].try_into().unwrap());
    assert_eq!(usize::try_from(len).unwrap(), out.len() - 5);
    let mut rest = &out[5..];
    let header = T::header_version(version);
    assert_eq!(header, 1 + i16::from(R::is_flexible(version)));
    let header = <RequestHeader as theirs::Decodable>::decode(&mut rest, header).unwrap();
    let expected = RequestHeader::default()
        .with_request_api_key(R::API_KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id)));
    assert_eq!(header, expected);
    let mut body = Vec::new();
    theirs.encode(&mut body, version).unwrap();
    assert_eq!(rest, body, "{} {version}: {theirs:?}", R::NAME);
    assert_eq!(&T::decode(&mut rest, version).unwrap(), theirs);
    assert!(rest.is_empty());
}

/// A response in the other codec's bytes.
fn frame<T: Encodable + HeaderVersion>(
    theirs: &T,
    version: i16,
    correlation_id: i32,
    draw: &mut Draw,
) -> Vec<u8> {
    let mut out = Vec::new();
    let header = ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .with_unknown_tagged_fields(draw.tags());
    header.encode(&mut out, T::header_version(version)).unwrap();
    theirs.encode(&mut out, version).unwrap();
    out
}

/// A response that is cut off or too long is an error; one with other bytes is that or a value.
fn damage<R: Request>(version: i16, frame: &[u8], draw: &mut Draw) {
    let corrupt = |bytes: &[u8]| {
        let kind = decode_frame::<R>(version, bytes).map(drop);
        let kind = kind.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Corruption), "{} {bytes:?}", R::NAME);
    };
    // The start, the end, and some of what is between them.
    let step = 1 + frame.len() / 200;
    for len in (0..frame.len()).filter(|len| len % step == 0 || frame.len() - len < 50) {
        corrupt(&frame[..len]);
    }
    corrupt(&[frame, &[0]].concat());
    for _ in 0..20 {
        let mut bytes = frame.to_vec();
        draw.damage(&mut bytes);
        if let Err(error) = decode_frame::<R>(version, &bytes) {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        }
    }
}

/// Compares the messages of one API, whose module makes the other codec's message and turns it
/// into ours.
macro_rules! compare {
    ($module:ident, $request:ty) => {
        #[test]
        fn $module() {
            use crate::kafka::protocol::messages::tests as check;
            check::every_version::<$request>(|version, draw| {
                let theirs = $module::request(draw, version);
                let ours = $module::our_request(&theirs);
                check::compare_request(&ours, &theirs, version, draw);

                let theirs = $module::response(draw, version);
                let id = draw.i32();
                let frame = check::frame(&theirs, version, id, draw);
                assert_eq!(check::correlation_id(&frame).unwrap(), id);
                let found = check::decode_frame::<$request>(version, &frame);
                let (found_id, found) = found.unwrap();
                let expected = $module::our_response(&theirs);
                assert_eq!((found_id, &found), (id, &expected), "version {version}");
                check::damage::<$request>(version, &frame, draw);
            });
        }
    };
}
use compare;

#[test]
fn a_version_that_the_broker_does_not_speak_needs_no_body_that_can_be_read() {
    for body in [&[0, 35][..], &[0, 35, 0, 0, 0, 0], &[0, 35, 1, 2, 3]] {
        let response = ApiVersionsRequest::decode(3, body).unwrap();
        assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
        assert!(response.api_keys.is_empty());
    }
    // Version 0 has nothing to fall back to.
    assert!(ApiVersionsRequest::decode(0, &[0, 35]).is_err());
    assert!(ApiVersionsRequest::decode(0, &[0, 35, 0, 0, 0, 0]).is_ok());
}

#[test]
fn errors_name_the_message_and_the_field() {
    let error = EndTxnRequest::decode(1, &[0, 0, 0, 0, 0]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("EndTxn response"), "{text}");
    assert!(text.contains("error code: needs 2 bytes at 4"), "{text}");
}

#[test]
fn secrets_stay_out_of_the_debug_form() {
    let request = SaslAuthenticateRequest {
        auth_bytes: b"hunter2",
    };
    let response = SaslAuthenticateResponse {
        error_code: ErrorCode::NONE,
        error_message: None,
        auth_bytes: b"hunter2",
        session_lifetime_ms: 5,
    };
    let text = format!("{request:?} {response:?}");
    assert!(text.contains("session_lifetime_ms: 5"), "{text}");
    let number = u32::from(b'h').to_string();
    assert!(
        !text.contains("hunter2") && !text.contains(&number),
        "{text}"
    );
}

#[test]
fn every_response_that_has_a_throttle_time_tells_it() {
    let end = EndTxnRequest::decode(1, &[0, 0, 0, 7, 0, 0]).unwrap();
    assert_eq!(EndTxnRequest::throttle_time_ms(&end), 7);
    let handshake = SaslHandshakeRequest::decode(1, &[0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(SaslHandshakeRequest::throttle_time_ms(&handshake), 0);
}
