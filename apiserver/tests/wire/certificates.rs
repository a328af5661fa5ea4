//! Client certificates that expire while their connection is open.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::harness::{ADMIN, MAPS, Server, absolute};

fn get(path: &str) -> Request<Body> {
    absolute(Request::get(path).body(Body::empty()).unwrap())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn an_expired_certificate_is_worth_nothing_on_an_open_connection() {
    let server = Server::start().await;
    server.pki.set_leaf_life(Duration::from_secs(3)).unwrap();
    let pair = server.pki.client(ADMIN.0, ADMIN.1).unwrap();
    let until = now() + 3;
    let (mut sender, _) = server.connect(Some(pair.clone())).await.unwrap();
    let mut watch = sender.send_request(get(&format!("{MAPS}?watch=1"))).await.unwrap().into_body();
    let mut served = 0;
    let last = loop {
        let path = if served % 2 == 0 { MAPS } else { "/trireme.io/v1/members" };
        match sender.send_request(get(path)).await {
            Ok(answer) if answer.status() == StatusCode::OK => served += 1,
            Ok(answer) => {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
                break now();
            }
            // The server closes the connection.
            Err(_) => break now(),
        }
        assert!(now() <= until + 1, "still served {} s after the end", now() - until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(served >= 2 && last >= until, "{served} answers, refused {} s early", until - last);
    // Nor does a watch outlive it for long.
    let end = async { while let Some(Ok(_)) = watch.frame().await {} };
    tokio::time::timeout(Duration::from_secs(20), end).await.unwrap();
    // And nobody gets in with it again: the handshake fails, or the first request does, which tells of it.
    if let Ok((mut sender, _)) = server.connect(Some(pair)).await {
        assert!(sender.send_request(get(MAPS)).await.is_err());
    }
}
