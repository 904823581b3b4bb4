# Holds each packet that a firewall rule puts into a queue for some time, and then lets it go, like
# a long link. For kernels without netem.
#
# perl delay.pl QUEUE SECONDS
use strict;
use warnings;
use POSIX ();

use constant {AF_NETLINK => 16, SOCK_RAW => 3, NETLINK_NETFILTER => 12};
# linux/netfilter/nfnetlink_queue.h: kinds of messages and their attributes.
use constant {PACKET => 0x300, VERDICT => 0x301, CONFIG => 0x302};
use constant {CONFIG_COMMAND => 1, CONFIG_COPY => 2, CONFIG_LENGTH => 3, PACKET_HEADER => 1, VERDICT_HEADER => 2};
use constant {BIND => 1, COPY_META => 1, ACCEPT => 1};

my ($queue, $delay_s) = @ARGV;
my $ticks_per_s = POSIX::sysconf(&POSIX::_SC_CLK_TCK);
socket my $netlink, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER or die "netlink: $!";

sub message {
    my ($kind, $attribute, $value) = @_;
    my $length = 4 + length $value;
    my $body = pack('CCn', 0, 0, $queue) . pack('SS', $length, $attribute) . $value . "\0" x (-$length & 3);
    my $header = pack 'LSSLL', 16 + length $body, $kind, 1, 0, 0;
    send $netlink, $header . $body, 0 or die "netlink: $!";
}

# The id of a queued packet, or nothing if the message is another one.
sub packet {
    my ($kind, $rest) = unpack 'x4S x10 x4 a*', $_[0];
    return if $kind != PACKET;
    while (length $rest >= 4) {
        my ($length, $attribute) = unpack 'SS', $rest;
        return unpack 'x4N', $rest if ($attribute & 0x3fff) == PACKET_HEADER;
        $rest = substr $rest, ($length + 3) & ~3;
    }
    return;
}

message(CONFIG, CONFIG_COMMAND, pack 'CxS', BIND, 0);
message(CONFIG, CONFIG_COPY, pack 'NC', 0, COPY_META);
message(CONFIG, CONFIG_LENGTH, pack 'N', 100_000);

my @held;
while (1) {
    my $now = (POSIX::times())[0];
    while (@held && $held[0][0] <= $now) {
        message(VERDICT, VERDICT_HEADER, pack 'NN', ACCEPT, (shift @held)->[1]);
    }
    my $readable = '';
    vec($readable, fileno $netlink, 1) = 1;
    my $wait_s = @held ? ($held[0][0] - $now) / $ticks_per_s : undef;
    next if select($readable, undef, undef, $wait_s) <= 0;
    # The kernel reports here if the socket was full. The packets that it lost are lost on the link.
    defined(recv $netlink, my $message, 65_536, 0) or next;
    my $id = packet($message);
    push @held, [(POSIX::times())[0] + $delay_s * $ticks_per_s, $id] if defined $id;
}
