# Asks a DNS server for the addresses of a name every 5 ms. A question without an answer is
# repeated twice, as `dig` does: UDP can lose a packet. `DIRECTORY/counts.1` has the numbers of
# answers with and without an address, `DIRECTORY/failures` a line for each one without.
#
# perl lookups.pl SERVER NAME DIRECTORY
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(strftime);

my ($server, $name, $directory) = @ARGV;
my $tries = 3;
my $wait_s = 3;
my $pause_s = 0.005;
my $socket = IO::Socket::INET->new(PeerAddr => $server, PeerPort => 53, Proto => 'udp')
    or die "$server: $@";
my $question = join('', map { pack 'C/a', $_ } split /\./, $name) . pack('Cnn', 0, 1, 1);
my $id = 0;

# Returns what is wrong, or an empty string.
sub lookup {
    $id = ($id + 1) & 0xffff;
    for (1 .. $tries) {
        send $socket, pack('nnnnnn', $id, 0x0100, 1, 0, 0, 0) . $question, 0 or next;
        my $ready = '';
        vec($ready, fileno $socket, 1) = 1;
        while (select(my $readable = $ready, undef, undef, $wait_s) > 0) {
            defined(recv $socket, my $answer, 4096, 0) or last;
            my ($answered, $flags, undef, $records) = unpack 'nnnn', $answer;
            next if $answered != $id;
            my $code = $flags & 15;
            return $code || !$records ? "$records records, response code $code" : '';
        }
    }
    return 'no answer';
}

my ($good, $failed) = (0, 0);
while (1) {
    my $problem = lookup();
    $problem ? $failed++ : $good++;
    if ($problem) {
        open my $log, '>>', "$directory/failures" or die "$directory/failures: $!";
        print $log strftime('%H:%M:%S', gmtime), " $problem\n";
        close $log;
    }
    open my $counts, '>', "$directory/new" or die "$directory/new: $!";
    print $counts "$good $failed\n";
    close $counts;
    rename "$directory/new", "$directory/counts.1" or die "counts.1: $!";
    select undef, undef, undef, $pause_s;
}
