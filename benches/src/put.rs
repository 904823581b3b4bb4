//! The one call that both sides of the comparison answer: `Put` of etcd's gRPC service `KV`, its
//! messages written by hand because etcd's protocol files are not ours to carry; `Status`, which
//! tells etcd's leader; and how gRPC puts a message into a body.

use anyhow::ensure;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

/// The path of `Put`.
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
/// The path of `Status`.
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `etcdserverpb.ResponseHeader`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "2")]
    pub(crate) member: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// `etcdserverpb.PutResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusRequest {}

/// `etcdserverpb.StatusResponse`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// The message after the head that says how long it is and that it is not compressed.
pub(crate) fn framed(message: &impl Message) -> anyhow::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(PREFIX + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

/// The one message of a body.
pub(crate) fn message<M: Message + Default>(mut body: Bytes) -> anyhow::Result<M> {
    ensure!(
        body.len() >= PREFIX,
        "{} bytes are too few for a gRPC message",
        body.len()
    );
    let (compressed, size) = (body.get_u8(), body.get_u32());
    ensure!(compressed == 0, "the message is compressed");
    ensure!(
        size as usize == body.len(),
        "{} bytes of a message of {size}",
        body.len()
    );
    Ok(M::decode(body)?)
}
