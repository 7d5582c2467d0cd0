"""Small programs for the ends of a lab: `python probe.py WHAT ADDRESS ...` prints one JSON value:

echo ADDRESS             answers UDP datagrams until it is killed
sink ADDRESS SECONDS     TCP: bytes per second of one connection, in the time after its first 0.3 s
pings ADDRESS COUNT GAP  UDP: round trips in ms, null for each one that was not answered within 0.3 s
flood ADDRESS COUNT SIZE UDP: sends so many datagrams, in bursts that leave the device's queue room
pour ADDRESS SECONDS     TCP: sends for so long
"""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 9000


def echo(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.bind((address, PORT))
        print(json.dumps("ready"), flush=True)
        while True:
            data, source = mine.recvfrom(2048)
            mine.sendto(data, source)


def pings(address: str, count: int, gap_s: float) -> list[float | None]:
    trips: list[float | None] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.settimeout(0.3)
        for number in range(count):
            began = time.perf_counter()
            mine.sendto(number.to_bytes(4), (address, PORT))
            try:
                while mine.recv(64) != number.to_bytes(4):
                    pass
                trips.append(1000 * (time.perf_counter() - began))
            except TimeoutError:
                trips.append(None)
            time.sleep(gap_s)
    return trips


def flood(address: str, count: int, size: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        for number in range(count):
            mine.sendto(bytes(size), (address, PORT + 1))
            if number % 100 == 99:
                time.sleep(0.001)
    return count


def sink(address: str, seconds: float) -> float:
    with socket.create_server((address, PORT)) as server:
        print(json.dumps("ready"), flush=True)
        server.settimeout(10)
        connection, _ = server.accept()
        buffer = bytearray(1 << 18)
        began = time.perf_counter()
        got, started = 0, 0.0
        while (now := time.perf_counter()) < began + seconds and (size := connection.recv_into(buffer)):
            if started:
                got += size
            elif now > began + 0.3:
                started = now
        return got / (time.perf_counter() - started)


def pour(address: str, seconds: float) -> float:
    block = bytes(1 << 16)
    sent, until = 0, time.perf_counter() + seconds
    with socket.create_connection((address, PORT), timeout=10) as mine:
        try:
            while time.perf_counter() < until:
                sent += mine.send(block)
        except ConnectionError:
            pass  # the sink has seen enough
    return sent / seconds


def main(what: str, address: str, *numbers: str) -> None:
    match what:
        case "echo":
            echo(address)
        case "pings":
            print(json.dumps(pings(address, int(numbers[0]), float(numbers[1]))))
        case "flood":
            print(json.dumps(flood(address, int(numbers[0]), int(numbers[1]))))
        case "sink":
            print(json.dumps(sink(address, float(numbers[0]))))
        case "pour":
            print(json.dumps(pour(address, float(numbers[0]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
