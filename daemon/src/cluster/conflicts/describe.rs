//! A record's value as text: its decoded fields, and those in which two values differ. A value of a
//! kind or format that this machine does not know is shown as length and digest.

use std::collections::BTreeSet;

use jiff::Timestamp;
use prost::Message;
use uc_api::v1::conflict_side::Value;
use uc_api::v1::{
    ConflictField, MachineRecord, OpaqueValue, ServiceMode, ServiceRecord, ServiceSpec, VolumeSpec,
};
use uc_planner::diff;

use crate::cluster::records;

/// Name and text of a field.
type Field = (String, String);

/// Decodes the value of a record of this kind.
pub(super) fn decode(kind: u16, bytes: &[u8]) -> Value {
    fn of<M: Message + Default>(bytes: &[u8], wrap: impl Fn(M) -> Value) -> Option<Value> {
        M::decode(bytes).ok().map(wrap)
    }
    let known = match kind {
        records::SERVICE => of(bytes, Value::Service),
        records::MACHINE => of(bytes, Value::Machine),
        records::CLUSTER => of(bytes, Value::Cluster),
        records::TOKEN => of(bytes, Value::Token),
        _ => None,
    };
    known.unwrap_or_else(|| {
        Value::Opaque(OpaqueValue {
            bytes: bytes.len() as u64,
            digest: blake3::hash(bytes).to_hex().to_string(),
        })
    })
}

/// RFC 3339; empty for 0, which means never.
pub(super) fn time(ms: i64) -> String {
    if ms == 0 {
        return String::new();
    }
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

/// Every field that is set in at least one of them, in the order of the record.
pub(super) fn compare(active: Option<&Value>, value: Option<&Value>) -> Vec<ConflictField> {
    let hidden = differences(active, value);
    let texts = |value: Option<&Value>| value.map_or_else(Vec::new, fields);
    merge(texts(active), texts(value))
        .into_iter()
        .map(|(name, active, value)| {
            let differs = active != value || hidden.contains(&name);
            ConflictField {
                name,
                active,
                value,
                differs,
            }
        })
        .collect()
}

/// Names of the fields that differ, also those whose masked texts are equal.
fn differences(active: Option<&Value>, value: Option<&Value>) -> BTreeSet<String> {
    let (Some(Value::Service(active)), Some(Value::Service(value))) = (active, value) else {
        return BTreeSet::new();
    };
    let mut names: BTreeSet<String> = diff::fields(&spec(active), &spec(value))
        .into_iter()
        .map(|change| change.field)
        .collect();
    if active.volumes != value.volumes {
        names.insert(VOLUMES.to_owned());
    }
    names
}

/// Merges two lists of fields that have the same order.
fn merge(a: Vec<Field>, b: Vec<Field>) -> Vec<(String, String, String)> {
    let mut merged = Vec::with_capacity(a.len().max(b.len()));
    let both: BTreeSet<String> = {
        let names: BTreeSet<&String> = a.iter().map(|(name, _)| name).collect();
        b.iter()
            .map(|(name, _)| name)
            .filter(|name| names.contains(name))
            .cloned()
            .collect()
    };
    let mut b = b.into_iter().peekable();
    for (name, text) in a {
        if !both.contains(&name) {
            merged.push((name, text, String::new()));
            continue;
        }
        while let Some((name, text)) = b.next_if(|(other, _)| *other != name) {
            merged.push((name, String::new(), text));
        }
        // A name can be in one of them twice: a variable and a secret variable.
        let other = b.next().map_or_else(String::new, |(_, text)| text);
        merged.push((name, text, other));
    }
    merged.extend(b.map(|(name, text)| (name, String::new(), text)));
    merged
}

/// Field name for the project's volumes that the service uses; `volumes` are its mounts.
const VOLUMES: &str = "volumes of the project";

fn fields(value: &Value) -> Vec<Field> {
    let pairs = match value {
        Value::Service(record) => return service(record),
        Value::Machine(record) => machine(record),
        Value::Cluster(record) => vec![
            ("id", record.id.clone()),
            ("network", record.network.clone()),
            ("created", time(record.created_at_ms)),
        ],
        Value::Token(record) => vec![
            ("id", record.id.clone()),
            ("expires", time(record.expires_at_ms)),
            ("used by", record.used_by.clone()),
            ("used", time(record.used_at_ms)),
        ],
        Value::Opaque(opaque) => {
            vec![
                ("bytes", opaque.bytes.to_string()),
                ("blake3", opaque.digest.clone()),
            ]
        }
    };
    let set = pairs.into_iter().filter(|(_, text)| !text.is_empty());
    set.map(|(name, text)| (name.to_owned(), text)).collect()
}

fn machine(record: &MachineRecord) -> Vec<(&'static str, String)> {
    let labels: Vec<String> = record
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        ("id", record.id.clone()),
        ("name", record.name.clone()),
        ("public key", record.public_key.clone()),
        ("subnet", record.subnet.clone()),
        ("endpoints", record.endpoints.join(", ")),
        ("created", time(record.created_at_ms)),
        ("labels", labels.join(", ")),
        ("cordoned", time(record.cordoned_at_ms)),
    ]
}

fn spec(record: &ServiceRecord) -> ServiceSpec {
    record.spec.clone().unwrap_or_default()
}

/// Fields by their names in the compose file. Revision and time of the change are left out: the
/// first follows from the fields, the second from the stamp.
fn service(record: &ServiceRecord) -> Vec<Field> {
    let spec = spec(record);
    let global = spec.mode() == ServiceMode::Global;
    // With the default of 0, a service with 0 replicas would not differ in this field.
    let nothing = ServiceSpec {
        replicas: u32::MAX,
        ..ServiceSpec::default()
    };
    let mut fields: Vec<Field> = diff::fields(&nothing, &spec)
        .into_iter()
        .filter(|change| !(global && change.field == "deploy.replicas"))
        .map(|change| (change.field, change.new))
        .collect();
    if !record.volumes.is_empty() {
        fields.push((VOLUMES.to_owned(), volumes(&record.volumes)));
    }
    fields
}

fn volumes(volumes: &[VolumeSpec]) -> String {
    let text = |volume: &VolumeSpec| match (volume.external, volume.driver.as_str()) {
        (true, _) => format!("{} (external)", volume.name),
        (false, "" | "local") => volume.name.clone(),
        (false, driver) => format!("{} ({driver})", volume.name),
    };
    volumes.iter().map(text).collect::<Vec<_>>().join(", ")
}
