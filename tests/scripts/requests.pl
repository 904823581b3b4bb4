# Requests a page again and again, as a program does that keeps neither addresses nor connections:
# each time it looks the name up, takes the first address, and connects. Several workers do so at
# the same time. `DIRECTORY/counts.WORKER` has the numbers of good and of failed requests,
# `DIRECTORY/failures` a line for each failed one.
#
# perl requests.pl NAME WORKERS DIRECTORY
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(strftime);
use Socket qw(getaddrinfo getnameinfo SOCK_STREAM AF_INET NI_NUMERICHOST);

my ($name, $workers, $directory) = @ARGV;
my $limit_s = 10;
my $pause_s = 0.02;
$SIG{PIPE} = 'IGNORE';

# Returns what is wrong, or an empty string.
sub request {
    my ($problem, @found) = getaddrinfo($name, 80, {family => AF_INET, socktype => SOCK_STREAM});
    return "cannot look $name up: $problem" if $problem;
    return "$name has no address" unless @found;
    my (undef, $address) = getnameinfo($found[0]{addr}, NI_NUMERICHOST);
    my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => 80, Timeout => $limit_s)
        or return "cannot connect to $address: $@";
    my $answer = '';
    my $read = eval {
        local $SIG{ALRM} = sub { die "no answer in $limit_s s\n" };
        alarm $limit_s;
        my $sent = syswrite $socket, "GET / HTTP/1.0\r\nHost: $name\r\n\r\n";
        die "$!\n" unless defined $sent;
        while (1) {
            my $got = sysread $socket, $answer, 4096, length $answer;
            die "$!\n" unless defined $got;
            last unless $got;
        }
        1;
    };
    my $error = $@;
    alarm 0;
    return "$address: $error" unless $read;
    return $answer =~ m{\AHTTP/1\.[01] 200 .*\r\n\r\nv\d+\n\z}s ? '' : "$address answers `$answer`";
}

for my $worker (1 .. $workers) {
    defined(my $child = fork) or die "fork: $!";
    next if $child;
    my ($good, $failed) = (0, 0);
    while (1) {
        my $problem = request();
        $problem ? $failed++ : $good++;
        if ($problem) {
            open my $log, '>>', "$directory/failures" or die "$directory/failures: $!";
            print $log strftime('%H:%M:%S', gmtime), " $problem\n";
            close $log;
        }
        open my $counts, '>', "$directory/new.$worker" or die "$directory/new.$worker: $!";
        print $counts "$good $failed\n";
        close $counts;
        rename "$directory/new.$worker", "$directory/counts.$worker" or die "counts.$worker: $!";
        select undef, undef, undef, $pause_s;
    }
}
wait;
