//! The Files endpoints over real HTTP.
#![allow(clippy::unwrap_used)]

mod common;

use common::{error, rows, sim};
use reqwest::multipart::{Form, Part};

#[tokio::test]
async fn an_upload_can_be_described_downloaded_and_deleted() {
    let sim = sim(|_| ()).await;
    let content = rows(3);
    let form = Form::new()
        .text("expires_after[anchor]", "created_at")
        .text("expires_after[seconds]", "3600")
        .part("file", Part::text(content.clone()).file_name("b-1.jsonl"))
        .text("purpose", "batch");
    let (status, file) = sim.form(form).await;
    assert_eq!(status, 200);
    assert_eq!(file["object"], "file");
    assert_eq!(file["filename"], "b-1.jsonl");
    assert_eq!(file["purpose"], "batch");
    assert_eq!(file["bytes"], content.len());
    assert_eq!(file["expires_at"].as_u64().unwrap() - file["created_at"].as_u64().unwrap(), 3600);
    let path = format!("/files/{}", file["id"].as_str().unwrap());
    assert_eq!(sim.get(&path).await.1, file);
    assert_eq!(sim.text(&format!("{path}/content")).await, content);
    let (status, deleted) = sim.delete(&path).await;
    assert_eq!((status.as_u16(), &deleted["deleted"]), (200, &true.into()));
    for (status, body) in [sim.get(&path).await, sim.get(&format!("{path}/content")).await, sim.delete(&path).await] {
        assert_eq!(status, 404);
        assert!(error(&body).0.starts_with("No such File object"));
    }
    let left = std::fs::read_dir(sim.folder.path().join("files")).unwrap().count();
    assert_eq!(left, 0, "neither bytes nor description stay on disk");
}

#[tokio::test]
async fn wrong_uploads_are_refused_and_leave_nothing() {
    let sim = sim(|_| ()).await;
    let file = |name: &'static str| Part::text("{}").file_name(name);
    for (form, param) in [
        (Form::new().part("file", file("a.jsonl")), "purpose"),
        (Form::new().text("purpose", "batch"), "file"),
        (Form::new().text("purpose", "batch").text("file", "text"), "file"),
        (Form::new().text("purpose", "fun").part("file", file("a.jsonl")), "purpose"),
        (Form::new().text("purpose", "batch").part("file", file("a.csv")), "file"),
        (
            Form::new()
                .text("purpose", "batch")
                .part("file", file("a.jsonl"))
                .text("expires_after[anchor]", "created_at"),
            "expires_after.seconds",
        ),
        (
            Form::new()
                .text("purpose", "batch")
                .part("file", file("a.jsonl"))
                .text("expires_after[anchor]", "created_at")
                .text("expires_after[seconds]", "3"),
            "expires_after.seconds",
        ),
    ] {
        let (status, body) = sim.form(form).await;
        assert_eq!((status.as_u16(), error(&body).1), (400, Some(param)), "{body}");
    }
    assert_eq!(std::fs::read_dir(sim.folder.path().join("files")).unwrap().count(), 0);
    assert_eq!(sim.get("/files").await.1["data"], serde_json::json!([]));
}

#[tokio::test]
async fn ranges_are_answered_with_206_and_416() {
    let sim = sim(|_| ()).await;
    let content = "0123456789".repeat(300_000);
    let form = Form::new().text("purpose", "user_data").part("file", Part::text(content.clone()).file_name("x"));
    let id = sim.form(form).await.1["id"].as_str().unwrap().to_owned();
    let url = sim.url(&format!("/files/{id}/content"));
    let ask = async |range: &str| sim.client.get(&url).header("range", range).send().await.unwrap();
    for (range, first, last) in
        [("bytes=0-9", 0, 9), ("bytes=2000005-", 2_000_005, 2_999_999), ("bytes=-7", 2_999_993, 2_999_999)]
    {
        let reply = ask(range).await;
        assert_eq!(reply.status(), 206);
        assert_eq!(reply.headers()["content-range"], format!("bytes {first}-{last}/3000000"));
        assert_eq!(reply.headers()["content-length"], (last - first + 1).to_string());
        assert_eq!(reply.text().await.unwrap(), content[first..=last]);
    }
    let reply = ask("bytes=3000000-").await;
    assert_eq!(reply.status(), 416);
    assert_eq!(reply.headers()["content-range"], "bytes */3000000");
    let reply = ask("bytes=0-1,5-6").await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["accept-ranges"], "bytes");
    assert_eq!(reply.text().await.unwrap(), content);
}

#[tokio::test]
async fn listings_page_by_id_and_filter_by_purpose() {
    let sim = sim(|_| ()).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(sim.upload(rows(1)).await);
    }
    sim.form(Form::new().text("purpose", "user_data").part("file", Part::text("x").file_name("x"))).await;
    let page = async |query: &str| {
        let (status, list) = sim.get(&format!("/files?{query}")).await;
        assert_eq!(status, 200, "{list}");
        let names: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(list["first_id"].as_str(), names.first().map(String::as_str));
        assert_eq!(list["last_id"].as_str(), names.last().map(String::as_str));
        (names, list["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("").await.0.len(), 6);
    assert_eq!(page("purpose=batch&order=asc").await, (ids.clone(), false));
    assert_eq!(
        page(&format!("purpose=batch&limit=2&after={}", ids[3])).await,
        (vec![ids[2].clone(), ids[1].clone()], true)
    );
    assert_eq!(page(&format!("order=asc&purpose=batch&limit=2&after={}", ids[2])).await, (ids[3..].to_vec(), false));
    for query in ["limit=0", "limit=10001", "order=up", "after=file-none"] {
        assert_eq!(sim.get(&format!("/files?{query}")).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn keys_routes_and_methods_are_refused_in_the_error_shape() {
    let sim = sim(|config| config.api_keys = vec!["right".into()]).await;
    let ask = async |key: Option<&str>, path: &str| {
        let request = sim.client.get(sim.url(path));
        let request = key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let reply = request.send().await.unwrap();
        assert!(reply.headers().contains_key("x-request-id"));
        (reply.status().as_u16(), reply.json::<serde_json::Value>().await.unwrap())
    };
    let (status, body) = ask(None, "/files").await;
    assert_eq!((status, error(&body).2), (401, None));
    let (status, body) = ask(Some("wrong"), "/files").await;
    assert_eq!((status, error(&body).2), (401, Some("invalid_api_key")));
    assert_eq!(ask(Some("right"), "/files").await.0, 200);
    assert_eq!(ask(Some("right"), "/models/digest").await.1["id"], "digest");
    assert_eq!(ask(Some("right"), "/models").await.1["data"].as_array().unwrap().len(), 2);
    let (status, body) = ask(Some("right"), "/nothing").await;
    assert_eq!((status, error(&body).2), (404, Some("unknown_url")));
    let (status, body) = ask(Some("right"), "/batches/batch_none/cancel").await;
    assert_eq!((status, error(&body).2), (405, Some("method_not_supported")));
    let health = sim.client.get(format!("http://{}/healthz", sim.running.addr)).send().await.unwrap();
    assert_eq!(health.status(), 200);
}
