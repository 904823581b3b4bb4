//! Small pure conversions between the engine's API and ours.

use bollard::models::{EventMessage, EventMessageTypeEnum};

use crate::engine::record::or_empty;
use crate::engine::spec::{is_object_name, is_reference};
use crate::engine::{ApiVersion, EngineError, EngineEvent};

/// Docker 20.10 supports this version. It is the first with everything that uc requires.
const OLDEST_API: ApiVersion = ApiVersion::new(1, 41);

/// Checks an id or name before it becomes part of a path, so that it cannot change the path.
pub(super) fn object(name: &str) -> Result<String, EngineError> {
    if is_object_name(name) {
        Ok(name.to_owned())
    } else {
        Err(EngineError::Invalid {
            message: format!("invalid name or id of a container or volume `{name}`"),
        })
    }
}

pub(super) fn reference(image: &str) -> Result<String, EngineError> {
    if is_reference(image) {
        Ok(image.to_owned())
    } else {
        Err(EngineError::Invalid {
            message: format!("invalid image reference `{image}`"),
        })
    }
}

pub(super) fn too_old(api: ApiVersion) -> bool {
    api < OLDEST_API
}

/// Rounds Unix milliseconds to seconds, because this client library accepts no fractions. The
/// caller filters out the excess lines.
pub(super) fn seconds(ms: Option<i64>, round_up: i64) -> i32 {
    ms.map_or(0, |ms| {
        i32::try_from((ms + round_up).div_euclid(1000)).unwrap_or(i32::MAX)
    })
}

/// Converts an event of the engine. Returns `None` for events that do not matter to us.
pub(super) fn event(message: EventMessage) -> Option<EngineEvent> {
    let actor = or_empty(message.actor);
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

/// Reports whether a reference has a tag or digest (`name:tag` or `name@digest`). A colon before
/// the last slash belongs to a registry's port.
pub(super) fn has_tag(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.contains(':') || last.contains('@')
}

/// Makes a line of pull progress for users, or `None` if there is nothing to show.
pub(super) fn progress_line(info: bollard::models::CreateImageInfo) -> Option<String> {
    let status = info.status?;
    let id = info.id.map_or_else(String::new, |id| format!("{id}: "));
    let detail = or_empty(info.progress_detail);
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
    fn too_old_refuses_versions_before_20_10() {
        let too_old = |api| too_old(ApiVersion::parse(api));
        assert_eq!(
            ["1.40", "1.41", "1.51", "2.0", ""].map(too_old),
            [true, false, false, false, true]
        );
    }

    #[test]
    fn object_and_reference_refuse_path_characters() {
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
    fn has_tag_is_false_without_tag_or_digest() {
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
    fn seconds_round_outward() {
        assert_eq!(seconds(None, 0), 0);
        assert_eq!((seconds(Some(1500), 0), seconds(Some(1500), 999)), (1, 2));
        assert_eq!((seconds(Some(2000), 0), seconds(Some(2000), 999)), (2, 2));
        assert_eq!(seconds(Some(i64::MAX / 2), 0), i32::MAX);
    }

    #[test]
    fn progress_line_is_readable() {
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
