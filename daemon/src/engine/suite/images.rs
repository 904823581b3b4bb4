//! Images: loading, pulling and removing them.

use super::*;
use crate::engine::error::PullProblem;

pub(super) async fn load_makes_image_available(bench: Bench) {
    assert_eq!(bench.engine.image(IMAGE).await.unwrap(), None);
    let spec = service("early", "true");
    let missing = bench
        .engine
        .create("suite-early-aaaa", "", body(&spec, "suite-early-aaaa"))
        .await
        .unwrap_err();
    assert_eq!(
        missing,
        EngineError::ImageMissing {
            image: IMAGE.into()
        }
    );
    let garbage =
        futures_util::stream::iter([Ok(Bytes::from_static(b"these bytes are not an archive"))]);
    assert!(bench.engine.load(garbage.boxed()).await.is_err());
    let broken = futures_util::stream::iter([
        Ok(bench.archive.slice(..8)),
        Err(std::io::Error::other("the sender disconnected")),
    ]);
    assert!(bench.engine.load(broken.boxed()).await.is_err());
    assert_eq!(bench.engine.image(IMAGE).await.unwrap(), None);

    bench.load().await;
    assert!(bench.engine.image(IMAGE).await.unwrap().is_some());
    assert!(matches!(
        bench.engine.image("a?b").await,
        Err(EngineError::Invalid { .. })
    ));

    // No process listens on port 1.
    let pulled = async {
        bench
            .engine
            .pull("localhost:1/uc/none:1", "")
            .await?
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    };
    let pulled: Result<Vec<String>, EngineError> = pulled.await;
    let error = pulled.unwrap_err();
    assert!(
        matches!(&error, EngineError::Pull { image, problem: PullProblem::Unreachable, .. } if image == "localhost:1/uc/none:1"),
        "{error:?}"
    );
}

pub(super) async fn remove_image_keeps_an_image_that_a_container_uses(bench: Bench) {
    let engine = &bench.engine;
    let named = |images: Vec<NamedImage>| {
        let mut names = images.into_iter().flat_map(|image| image.names);
        names.any(|name| name == IMAGE)
    };
    assert!(named(engine.images().await.unwrap()));
    let id = bench.create(&service("user", "true")).await;
    let refused = engine.remove_image(IMAGE).await;
    assert!(
        matches!(refused, Err(EngineError::Refused { .. })),
        "{refused:?}"
    );
    engine.remove(&id).await.unwrap();
    engine.remove_image(IMAGE).await.unwrap();
    engine.remove_image(IMAGE).await.unwrap();
    assert!(!named(engine.images().await.unwrap()));
    bench.load().await;
}
