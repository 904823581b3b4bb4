//! Small pure steps between the engine's API and ours.

use bollard::models::{EventMessage, EventMessageTypeEnum};

use crate::docker::spec::{is_object_name, is_reference};
use crate::docker::{ApiVersion, EngineError, EngineEvent};

/// 20.10 speaks this version, and the first with everything we cannot do without.
const OLDEST_API: ApiVersion = ApiVersion::new(1, 41);

/// Ids and names become parts of a path: nothing that could mean another path gets that far.
pub(super) fn object(name: &str) -> Result<String, EngineError> {
    if is_object_name(name) {
        Ok(name.to_owned())
    } else {
        Err(EngineError::Invalid {
            message: format!("`{name}` is not the name or id of a container or volume"),
        })
    }
}

pub(super) fn reference(image: &str) -> Result<String, EngineError> {
    if is_reference(image) {
        Ok(image.to_owned())
    } else {
        Err(EngineError::Invalid {
            message: format!("`{image}` is not an image reference"),
        })
    }
}

pub(super) fn too_old(api: ApiVersion) -> bool {
    api < OLDEST_API
}

/// Whole seconds around a time in milliseconds: the engine takes no fractions through this client.
/// What is too much is filtered out by us.
pub(super) fn seconds(ms: Option<i64>, round_up: i64) -> i32 {
    ms.map_or(0, |ms| {
        i32::try_from((ms + round_up).div_euclid(1000)).unwrap_or(i32::MAX)
    })
}

/// What an event of the engine means to us; most mean nothing.
pub(super) fn event(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor.unwrap_or_default();
    match message.typ? {
        EventMessageTypeEnum::CONTAINER => Some(EngineEvent::Container(actor.id?)),
        EventMessageTypeEnum::NETWORK => {
            let mut attributes = actor.attributes?;
            Some(EngineEvent::Container(attributes.remove("container")?))
        }
        EventMessageTypeEnum::VOLUME => Some(EngineEvent::Volume),
        _ => None,
    }
}

/// `name:tag` or `name@digest`; a colon before the last slash is a registry's port.
pub(super) fn has_tag(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.contains(':') || last.contains('@')
}

/// What a person would want to read of a pull.
pub(super) fn progress_line(info: bollard::models::CreateImageInfo) -> Option<String> {
    let status = info.status?;
    let id = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
    let detail = info.progress_detail.unwrap_or_default();
    let amount = match (detail.current, detail.total) {
        (Some(current), Some(total)) if total > 0 => {
            format!(" {} %", current.saturating_mul(100) / total)
        }
        _ => String::new(),
    };
    Some(format!("{id}{status}{amount}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_20_10_are_refused() {
        let too_old = |api| too_old(ApiVersion::parse(api));
        assert_eq!(
            ["1.40", "1.41", "1.51", "2.0", ""].map(too_old),
            [true, false, false, false, true]
        );
    }

    #[test]
    fn what_could_mean_another_path_is_refused() {
        for bad in ["", "..", "a/b", "a?b", "../images/json", "a b", "a%2f"] {
            assert!(object(bad).is_err(), "{bad}");
        }
        assert!(object("shop-web-ab2c").is_ok());
        for bad in ["", "../x", "a//b", "a?b", "a b", "/a", "a/../b"] {
            assert!(reference(bad).is_err(), "{bad}");
        }
        assert!(reference("registry.example:5000/a/b:1@sha256:ab").is_ok());
    }

    #[test]
    fn a_reference_without_tag_is_the_latest() {
        assert_eq!(
            [
                "nginx",
                "nginx:1",
                "r:5000/nginx",
                "r:5000/a/nginx:1",
                "a@sha256:ab"
            ]
            .map(has_tag),
            [false, true, false, true, true]
        );
    }

    #[test]
    fn seconds_enclose_the_wanted_time() {
        assert_eq!(seconds(None, 0), 0);
        assert_eq!((seconds(Some(1500), 0), seconds(Some(1500), 999)), (1, 2));
        assert_eq!((seconds(Some(2000), 0), seconds(Some(2000), 999)), (2, 2));
        assert_eq!(seconds(Some(i64::MAX / 2), 0), i32::MAX);
    }

    #[test]
    fn progress_is_readable() {
        use bollard::models::{CreateImageInfo, ProgressDetail};
        let info = CreateImageInfo {
            id: Some("abc".into()),
            status: Some("Downloading".into()),
            progress_detail: Some(ProgressDetail {
                current: Some(5),
                total: Some(20),
            }),
            ..Default::default()
        };
        assert_eq!(
            progress_line(info).as_deref(),
            Some("abc: Downloading 25 %")
        );
        assert_eq!(progress_line(CreateImageInfo::default()), None);
    }
}
