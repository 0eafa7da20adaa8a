import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.GZIPInputStream;

/** Reads gzip files and URLs with the JDK alone, and prints the SHA-256 of what they hold and the number of lines. */
public class Rows {
    static InputStream open(HttpClient client, String source) throws IOException, InterruptedException {
        if (!source.startsWith("http")) {
            return Files.newInputStream(Path.of(source));
        }
        var request = HttpRequest.newBuilder(URI.create(source)).header("Accept-Encoding", "gzip").build();
        var answer = client.send(request, HttpResponse.BodyHandlers.ofInputStream());
        if (answer.statusCode() != 200 || !answer.headers().firstValue("Content-Encoding").orElse("").equals("gzip")) {
            throw new IOException(source + ": " + answer.statusCode() + " " + answer.headers().map());
        }
        return answer.body();
    }

    public static void main(String[] sources) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        for (var source : sources) {
            var digest = MessageDigest.getInstance("SHA-256");
            long rows = 0;
            try (var text = new GZIPInputStream(open(client, source), 1 << 16)) {
                var buffer = new byte[1 << 16];
                for (int read; (read = text.read(buffer)) >= 0; ) {
                    digest.update(buffer, 0, read);
                    for (int i = 0; i < read; i++) {
                        rows += buffer[i] == '\n' ? 1 : 0;
                    }
                }
            }
            System.out.println(HexFormat.of().formatHex(digest.digest()) + " " + rows);
        }
    }
}
