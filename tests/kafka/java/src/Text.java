import java.util.HexFormat;

/** Bytes as words: "-" for none, else "=" and hexadecimal digits. */
final class Text {
    private Text() {}

    static String encode(byte[] bytes) {
        return bytes == null ? "-" : "=" + HexFormat.of().formatHex(bytes);
    }

    static byte[] decode(String word) {
        return word.equals("-") ? null : HexFormat.of().parseHex(word, 1, word.length());
    }
}
