//! Reads the machine's resolvers from `/etc/resolv.conf`.

use std::net::{IpAddr, SocketAddr};

/// The port of the resolvers.
const DNS_PORT: u16 = 53;
/// Maximum number of resolvers; glibc also reads only three.
const MAX_SERVERS: usize = 3;

/// Returns the `nameserver` lines of a resolv.conf, in order. Invalid lines are skipped, as in
/// every resolver. Addresses with a zone (`fe80::1%eth0`) are not supported.
pub fn upstreams(text: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line
            .split(['#', ';'])
            .next()
            .expect("a split has at least one part")
            .split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) {
            let address = SocketAddr::new(ip, DNS_PORT);
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.truncate(MAX_SERVERS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_skips_invalid_lines() {
        let text = "# made by hand\nsearch example.org\nnameserver 192.0.2.1 # first\n nameserver\t2001:db8::1\n\
                    nameserver what\nnameserver\n;nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = upstreams(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert!(upstreams("").is_empty());
    }
}
