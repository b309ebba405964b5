//! What the emulation knows of a packet: whose it is, and how much of it is not headers.

/// Flows that are told apart. The last is for what is none of ours.
pub const FLOWS: usize = 16;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// One IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The third byte of its source's IPv4 address, if that is less than [`FLOWS`]; else the last flow.
    pub flow: usize,
    /// All of it, from the IP header on.
    pub bytes: u64,
    /// What TCP or UDP carry in it; everything behind the IP header for other protocols.
    pub payload_bytes: u64,
}

impl Packet {
    /// Reads the headers of a packet as a TUN device gives it. What has no IPv4 header is all payload, of the last flow.
    #[must_use]
    pub fn read(packet: &[u8]) -> Self {
        let bytes = packet.len() as u64;
        let other = Self { flow: FLOWS - 1, bytes, payload_bytes: bytes };
        let (Some(&first), Some(&protocol), Some(&flow)) = (packet.first(), packet.get(9), packet.get(14))
        else {
            return other;
        };
        if first >> 4 != 4 {
            return other;
        }
        let ip_bytes = usize::from(first & 15) * 4;
        let above_bytes = match protocol {
            UDP => 8,
            TCP => packet.get(ip_bytes + 12).map_or(0, |offset| usize::from(offset >> 4) * 4),
            _ => 0,
        };
        let header_bytes = (ip_bytes + above_bytes) as u64;
        Self {
            flow: usize::from(flow).min(FLOWS - 1),
            bytes,
            payload_bytes: bytes.saturating_sub(header_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, flow: u8, bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[14] = flow;
        packet
    }

    #[test]
    fn payload_is_what_is_left_behind_the_headers() {
        let udp = Packet::read(&packet(UDP, 3, 1000));
        assert_eq!(udp, Packet { flow: 3, bytes: 1000, payload_bytes: 972 });
        let mut segment = packet(TCP, 200, 1500);
        segment[20 + 12] = 8 << 4;
        assert_eq!(Packet::read(&segment), Packet { flow: FLOWS - 1, bytes: 1500, payload_bytes: 1448 });
        assert_eq!(Packet::read(&packet(1, 0, 84)).payload_bytes, 64);
    }

    #[test]
    fn nothing_is_too_strange_to_be_counted() {
        for bytes in 0..40 {
            let mut strange = vec![0x4f; bytes];
            assert_eq!(Packet::read(&strange).bytes, bytes as u64);
            if let Some(protocol) = strange.get_mut(9) {
                *protocol = TCP;
            }
            let read = Packet::read(&strange);
            assert!(read.payload_bytes <= read.bytes && read.flow < FLOWS);
        }
        assert_eq!(Packet::read(&[0x60; 60]), Packet { flow: FLOWS - 1, bytes: 60, payload_bytes: 60 });
    }
}
